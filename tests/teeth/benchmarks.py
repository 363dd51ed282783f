"""Faults in the benchmark."""

from __future__ import annotations

from teeth.fault import Fault

BENCH, CHANGES, ACCURACY = (f"tests/test_{name}.py::" for name in ("bench", "changes", "accuracy"))
COLUMNS = [f"{BENCH}test_a_row_is_shown_in_the_units_of_its_columns"]
PROFILE = [f"{BENCH}test_a_profile_measures_every_stage_both_ways_in_every_round"]
ROUNDS = [f"{BENCH}test_every_round_measures_every_candidate_once_in_a_new_random_order"]

_machine = [
    (
        "other programs are not watched before a benchmark",
        "sum(1 - (shares[i].idle",
        "sum(0 * (shares[i].idle",
        [f"{BENCH}test_processors_are_busy_with_all_but_waiting"],
    ),
]
_statistics = [
    (
        "a row that was starved is compared all the same",
        "spread > _STARVED)",
        "False)",
        [f"{BENCH}test_no_ratio_is_made_of_a_row_that_other_programs_starved"],
    ),
    (
        "quartiles are other quantiles",
        "np.percentile(seconds, [25, 50, 75])",
        "np.percentile(seconds, [5, 50, 95])",
        [f"{BENCH}test_median_and_quartiles_by_hand"],
    ),
    (
        "a speed ratio is upside down",
        "ratios = np.log(others[:n]) - np.log(seconds[:n])",
        "ratios = np.log(seconds[:n]) - np.log(others[:n])",
        [f"{BENCH}test_ratio_of_speeds_by_hand"],
    ),
    (
        "rounds of two candidates are drawn apart",
        "- np.log(seconds[:n])",
        "- np.log(sorted(seconds[:n])[::-1])",
        [f"{BENCH}test_a_drift_of_the_whole_machine_does_not_hide_a_difference"],
    ),
    (
        "an interval of 95 % is one of 90 %",
        "inv_cdf(0.975)",
        "inv_cdf(0.95)",
        [f"{BENCH}test_an_interval_of_95_percent_covers_the_true_ratio_in_93_to_97_of_100"],
    ),
    (
        "an interval of 95 % is one of 99 %",
        "inv_cdf(0.975)",
        "inv_cdf(0.995)",
        [f"{BENCH}test_an_interval_of_95_percent_covers_the_true_ratio_in_93_to_97_of_100"],
    ),
    (
        "an interval is that of the estimates, not of their middle",
        "cut = math.floor(mean - _Z * deviation)",
        "cut = len(ordered) // 40",
        [f"{BENCH}test_an_interval_of_95_percent_covers_the_true_ratio_in_93_to_97_of_100"],
    ),
    (
        "of a few rounds an interval is given too",
        "if rounds < LEAST:",
        "if rounds < 2:",
        [f"{BENCH}test_below_five_rounds_no_interval_is_known"],
    ),
    (
        "a percentile is given that no call lies beyond",
        "if calls * (100 - p) >= 100 else None",
        "if calls else None",
        [f"{BENCH}test_percentiles_are_those_of_single_calls_and_none_without_a_call_beyond"],
    ),
]
_rounds = [
    (
        "what differs from the referee is timed",
        "                row.problem = refutation(row.proof)\n",
        "",
        [f"{BENCH}test_a_wrong_weight_is_not_timed_and_the_others_are"],
    ),
    (
        "a first call that differs is timed",
        "\n        row.problem = refutation(row.proof)\n",
        "\n",
        [f"{BENCH}test_a_first_call_that_differs_is_not_timed"],
    ),
    (
        "every round has the same order",
        "enumerate(self.random.permutation(len(ready)))",
        "enumerate(range(len(ready)))",
        ROUNDS,
    ),
    (
        "a sample is the time of all calls",
        'measured["seconds"] / calls, measured["busy_threads"]',
        'measured["seconds"], measured["busy_threads"]',
        [f"{BENCH}test_a_measurement_lasts_long_enough_and_counts_a_single_call"],
    ),
    (
        "the last measurement of a peak remains",
        'max(peak["per_second"], new["per_second"])',
        'new["per_second"]',
        [f"{BENCH}test_best_of_two_peak_measurements_is_kept"],
    ),
    (
        "the rounds end although a ratio is not known",
        "uncertainty > PRECISION and self.clock() < end",
        "uncertainty > 3 * PRECISION and self.clock() < end",
        [f"{BENCH}test_rounds_go_on_until_every_ratio_is_known_to_3_percent"],
    ),
    (
        "the first task and batch takes the whole budget",
        "left=len(groups) - number",
        "left=1",
        [f"{BENCH}test_the_budget_is_shared_by_tasks_and_batches_and_ends_the_rounds"],
    ),
    (
        "warm-up ends while measurements still fall",
        "<= _ALIKE * min(seconds[-2:])",
        "<= _ALIKE * sum(seconds)",
        [f"{BENCH}test_warm_up_goes_on_until_two_measurements_are_alike"],
    ),
]
_record = [
    (
        "images a second are calls a second",
        "self.candidate.batch / self.summary.median_seconds",
        "1 / self.summary.median_seconds",
        COLUMNS,
    ),
    (
        "a row is compared with the last of its task and batch",
        "*textbook[:1], *peers[:1]]",
        "*textbook[:1], *peers[-1:]]",
        [f"{BENCH}test_comparisons_are_with_the_textbook_and_with_the_first"],
    ),
]
_changes = [
    (
        "what is slower by less than the noise has regressed",
        "self.ratio.high < 1 - self.noise",
        "self.ratio.high < 1",
        [f"{CHANGES}test_what_is_slower_by_less_than_the_twins_differ_has_not_regressed"],
    ),
    (
        "a change is upside down",
        "speed_change(now[candidate], then[candidate])",
        "speed_change(then[candidate], now[candidate])",
        [f"{CHANGES}test_what_is_slower_by_more_than_the_noise_has_regressed"],
    ),
    (
        "another number of threads is compared",
        "len(then.used_processors), len(now[",
        'len(now["used_processors"]), len(now[',
        [f"{CHANGES}test_another_machine_network_and_dtype_are_refused_all_at_once"],
    ),
    (
        "another schema is read",
        "if kind.schema != schema:",
        "if False:",
        [f"{CHANGES}test_a_file_that_is_no_benchmark_is_refused_before_any_work"],
    ),
]
_accuracy = [
    (
        "a training goes on after it has reached the target",
        "                    raise _Reached\n",
        "                    trial.reached = True\n",
        [f"{ACCURACY}test_the_clock_ends_with_the_evaluation_that_reaches_the_target"],
    ),
    (
        "importing and compiling are not counted",
        "trial.ends.append(self.clock() - began)",
        "trial.ends.append(self.clock() - began - 3)",
        [f"{ACCURACY}test_the_clock_ends_with_the_evaluation_that_reaches_the_target"],
    ),
    (
        "seeds that never reach the target are left out of the median",
        "median(trial.seconds for trial in self.trials)",
        "median(trial.seconds for trial in self.reached)",
        [f"{ACCURACY}test_where_most_seeds_never_reach_it_the_median_is_never"],
    ),
    (
        "every seed has the same order of backends",
        "enumerate(random.permutation(len(report.contenders)))",
        "enumerate(range(len(report.contenders)))",
        [f"{ACCURACY}test_every_backend_trains_once_with_every_seed_in_a_random_order"],
    ),
    (
        "what is not proven trains all the same",
        "            contender.problem = refutation(contender.proof)\n",
        "",
        [f"{ACCURACY}test_what_is_not_proven_does_not_train"],
    ),
]
_candidates = [
    (
        "a twin is held against the referee once more",
        "pipeline=False, again=False)",
        "pipeline=False)",
        [f"{BENCH}test_the_twin_of_the_first_shows_the_noise"],
    ),
]
_shown = [
    (
        "the verdict names the slowest",
        "key=lambda row: -row.images_per_second",
        "key=lambda row: row.images_per_second",
        [f"{BENCH}test_the_verdict_names_the_fastest_those_like_it_and_what_cannot_be_said"],
    ),
    (
        "the verdict counts what was starved",
        "steady = [row for row in rows if not row.summary.starved and not row.candidate.again]",
        "steady = [row for row in rows if not row.candidate.again]",
        [f"{BENCH}test_the_verdict_names_the_fastest_those_like_it_and_what_cannot_be_said"],
    ),
    ("memory is shown in GB under GiB", "row.peak_memory_bytes / 2**30", "row.peak_memory_bytes / 1e9", COLUMNS),
    (
        "microseconds are shown as milliseconds",
        "1000 * seconds:",
        "1e6 * seconds:",
        COLUMNS,
    ),
]
_profiles = [
    (
        "the way back counts the way forth too",
        "summarize(self.both).median_seconds - self.forward_seconds",
        "summarize(self.both).median_seconds",
        PROFILE,
    ),
    ("the way back has the operations of the way forth", "2 * flops[stage.name]", "flops[stage.name]", PROFILE),
]
_plots = [
    (
        "speed is drawn over the smallest error",
        "max(row.error or 0.0, np.finfo(float).eps)",
        "min(row.error or 0.0, np.finfo(float).eps)",
        [f"{BENCH}test_pictures_show_what_was_measured"],
    ),
    (
        "twins are drawn as rows of their own",
        "if row.samples and not row.candidate.again:",
        "if row.samples:",
        [f"{BENCH}test_pictures_show_what_was_measured"],
    ),
    (
        "bars of a stage overlap",
        "left=forward, color=_COLORS",
        "color=_COLORS",
        [f"{BENCH}test_stage_bars_show_backward_behind_forward"],
    ),
    (
        "whiskers are quartiles of the seconds, the wrong way round",
        "batch / s.upper_quartile_seconds for",
        "batch / s.lower_quartile_seconds for",
        [f"{BENCH}test_bars_are_as_long_as_the_median_speed_with_the_quartiles_around"],
    ),
]
_proof = [
    (
        "a benchmark's referee forgets the heads' weight",
        "weight * reference.softmax_cross_entropy(logits[head]",
        "reference.softmax_cross_entropy(logits[head]",
        [f"{BENCH}test_the_referee_counts_auxiliary_heads_in"],
    ),
    (
        "in bfloat16 a gradient of the other sign is proven",
        'checks.append(Check("all gradients as one vector", error, TOGETHER[dtype]))',
        'checks.append(Check("all gradients as one vector", error, 1.0))',
        [f"{BENCH}test_in_bfloat16_a_wrong_gradient_shows_in_all_of_them_as_one_vector[<lambda>0]"],
    ),
]
_bench = [
    (
        "the benchmark exits with 0 where something could not be measured",
        "raise typer.Exit(130 if not record.complete else 0 if record.passed and not regressed else 1)",
        "raise typer.Exit(130 if not record.complete else 0 if not regressed else 1)",
        [f"{BENCH}test_worker_that_dies_is_a_problem_of_its_rows_and_exit_status_1"],
    ),
]
_worker = [
    (
        "a worker that ends at once leaves its folder",
        "        except (Died, spec.InvalidInput):\n            self.close()\n            raise\n",
        "        except (Died, spec.InvalidInput):\n            raise\n",
        [f"{BENCH}test_a_process_that_ends_at_once_leaves_nothing"],
    ),
]

FAULTS = [
    Fault(name, file, old, new, tuple(tests))
    for file, faults in {
        "harness/bench/machine.py": _machine,
        "harness/bench/analysis/statistics.py": _statistics,
        "harness/bench/analysis/changes.py": _changes,
        "harness/bench/accuracy.py": _accuracy,
        "harness/bench/rounds.py": _rounds,
        "harness/bench/candidates.py": _candidates,
        "harness/bench/record.py": _record,
        "harness/bench/report/tables.py": _shown,
        "harness/bench/profiles.py": _profiles,
        "harness/bench/report/plots.py": _plots,
        "harness/bench/proof.py": _proof,
        "harness/cli/bench.py": _bench,
        "harness/bench/process.py": _worker,
    }.items()
    for name, old, new, tests in faults
]
