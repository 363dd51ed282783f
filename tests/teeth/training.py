"""Faults in the loop, runs, scores and devices."""

from __future__ import annotations

from teeth.fault import Fault

LOOP, TRAIN, START, PARALLEL = (f"tests/test_{name}.py::" for name in ("loop", "train", "start", "parallel"))


def _resumed(moment):
    return [f"{LOOP}test_a_resumed_run_ends_with_the_same_bytes[pt-{moment}]"]


REFEREE = [f"{LOOP}test_the_loop_trains_as_the_referee_does[pt]"]
EPOCH = [f"{LOOP}test_an_epochs_record_holds_means_over_its_images_and_over_the_test_images[pt]"]
MASKS = [f"{LOOP}test_dropout_keeps_in_each_step_what_the_mask_of_its_number_says[pt]"]
AGAIN = [f"{LOOP}test_steps_after_the_last_checkpoint_are_trained_again"]


def _partial(kind, backend="pt"):
    return [f"{LOOP}test_the_partial_batch_counts_as_the_recipe_says[{kind}-{backend}]"]


GUESSING = [f"{LOOP}test_a_mean_loss_at_that_of_guessing_is_warned_of_once"]
DIVERGED = [f"{LOOP}TestRefusals::test_a_loss_that_is_no_number_ends_the_run_at_the_checkpoint_before"]
SCORES = [f"{LOOP}test_scores_are_those_of_the_images_whatever_fills_the_last_batch"]
RECORD = [f"{LOOP}test_a_record_holds_the_means_since_the_one_before"]
TOGETHER = [f"{PARALLEL}test_several_processes_stop_together_when_one_is_told_to"]
PART = [f"{TRAIN}test_a_part_that_ends_early_unasked_is_a_problem_and_the_last_one"]
SUMMARY = [f"{TRAIN}test_a_runs_summary_holds_its_last_epoch_and_its_median_speed"]
REOPENING = [f"{TRAIN}TestReopening"]
CLASSES = [f"{TRAIN}test_classes_are_shown_with_recall_precision_and_the_commonest_mistake"]
CURVES = [f"{TRAIN}test_curves_show_steps_and_epochs_of_each_backend"]
WHOLE = [f"{TRAIN}test_what_is_single_is_a_point_steps_are_whole_and_a_dollar_is_no_mathematics"]
CONFUSION = [f"{TRAIN}test_the_picture_of_a_confusion_matrix_has_labels_down_and_predictions_across"]
SHARES = [f"{PARALLEL}test_shares_are_all_rows_once"]
ALIKE = [f"{PARALLEL}test_processes_notice_that_they_do_not_begin_alike"]


def _devices(backend):
    return [f"{PARALLEL}test_two_devices_train_as_one[{backend}]"]


_loop = [
    (
        "a run that averages is evaluated with the weights of its last step",
        "        params = checkpoint.averaged(package.dump_params(self.model), state)\n",
        "        params = package.dump_params(self.model)\n",
        [f"{LOOP}test_a_run_that_averages_is_evaluated_with_the_averages_and_goes_on_with_the_weights"],
    ),
    (
        "a partial batch counts as a whole one, whatever the recipe says",
        "scale = recipe.gradient_scale(count)",
        "scale = 1.0",
        _partial("nominal"),
    ),
    (
        "a partial batch that is to be dropped is trained",
        "islice(batches, per_epoch - first)",
        "batches",
        _partial("drop"),
    ),
    ("a resumed run begins its epoch anew", '"first": first}', '"first": 0}', _resumed("mid-epoch")),
    (
        "a resumed run starts with a fresh optimizer",
        "    if state is not None:",
        "    if False:",
        _resumed("first"),
    ),
    (
        "dropout has the mask of the next step",
        "(count, *shape), settings.seed, position.step)",
        "(count, *shape), settings.seed, position.step + 1)",
        MASKS,
    ),
    (
        "dropout's masks come again in every epoch",
        "(count, *shape), settings.seed, position.step)",
        "(count, *shape), settings.seed, position.step % per_epoch)",
        MASKS,
    ),
    (
        "a step has the rate of the one before",
        "recipe.rate(position.step, per_epoch))",
        "recipe.rate(max(position.step - 1, 0), per_epoch))",
        REFEREE,
    ),
    (
        "the rate recorded is the next step's",
        "recipe.rate(position.step - 1,",
        "recipe.rate(position.step,",
        REFEREE,
    ),
    (
        "an epoch's means go on into the next",
        "        position.epoch = Tally()\n",
        "",
        EPOCH,
    ),
    (
        "a record's means count what an earlier one counted",
        "            position.logged = Tally()\n",
        "",
        RECORD,
    ),
    (
        "a record's losses repeat those of an earlier one",
        "            position.losses = []\n",
        "",
        RECORD,
    ),
    ("a diverged run trains on", "            if not math.isfinite(loss):", "            if False:", DIVERGED),
    (
        "divergence is said of the step before",
        "enumerate(self.unread, before + 1)",
        "enumerate(self.unread, before)",
        DIVERGED,
    ),
    (
        "a plateau is warned of at every step",
        "        if self.stalled and not warned:",
        "        if self.stalled:",
        GUESSING,
    ),
    ("a plateau is any loss near that of guessing", "_NEAR = 0.01", "_NEAR = 0.1", GUESSING),
    (
        "a full disk is noticed after the first epoch",
        "            self._save()  # a disk that",
        "            pass  # a disk that",
        ["tests/test_train.py::TestFailures::test_a_full_disk_leaves_the_checkpoint_before"],
    ),
    (
        "an interrupt waits for the end of the epoch",
        "                if self.stopped() or position.step >= self.stop_step:",
        "                if position.step >= self.stop_step:",
        [f"{LOOP}test_stopping_takes_effect_after_the_step_at_hand"],
    ),
    (
        "an epoch whose evaluation was stopped counts as evaluated",
        "        test_scores = self._evaluate()\n        position.evaluated += 1\n",
        "        position.evaluated += 1\n        test_scores = self._evaluate()\n",
        [f"{LOOP}test_an_evaluation_that_is_stopped_is_made_again"],
    ),
    (
        "a run goes on with other settings",
        "        if saved_settings != settings:",
        "        if False:",
        [f"{LOOP}TestRefusals::test_a_checkpoint_of_a_run_with_other_settings_is_refused"],
    ),
    (
        "nothing is saved within an epoch",
        "                if now - self.saved_at >= SAVE_EVERY and position.step % per_epoch:",
        "                if False:",
        [f"{LOOP}test_a_checkpoint_is_due_after_so_many_seconds_and_at_the_end_of_an_epoch"],
    ),
    (
        "a run forgets who trained it",
        'if not position.lineage or position.lineage[-1]["backend"] != backend:',
        "if not position.lineage:",
        [f"{LOOP}test_a_run_goes_on_in_another_framework_as_if_in_its_own"],
    ),
    (
        "a run that goes on counts its time anew",
        'time.monotonic() - (self.records[-1]["seconds"] if self.records else 0.0)',
        "time.monotonic()",
        [f"{LOOP}test_time_goes_on_where_the_records_end"],
    ),
    (
        "speed counts the images of a record that are from before the pause",
        "self.images_done += images",
        "self.images_done = position.logged.seen",
        [f"{LOOP}test_speed_counts_the_images_since_the_start"],
    ),
    (
        "of several processes each stops when it is told to itself",
        "stop = stopped if team.processes == 1 else lambda: team.any(stopped())",
        "stop = stopped",
        TOGETHER,
    ),
    (
        "every process records and saves",
        "        if team.rank == 0:",
        "        if True:",
        [f"{PARALLEL}test_of_several_processes_the_first_one_records_and_saves"],
    ),
    (
        "processes that begin with other settings train together",
        "    if not team.same(json.dumps([settings.as_json(), asdict(position), stop_step])):",
        "    if not team.same(json.dumps([asdict(position), stop_step])):",
        [f"{PARALLEL}test_several_processes_that_do_not_begin_alike_refuse"],
    ),
]
_recipe = [
    (
        "an epoch goes on to the last batch whatever the recipe says",
        "return min(batches, self.epoch_steps or batches)",
        "return batches",
        [f"{LOOP}test_an_epoch_ends_where_the_recipe_says_and_the_next_has_an_order_of_its_own"],
    ),
    (
        "an epoch leaves its last, smaller batch out",
        'whole + (rest > 0 and self.partial_batch != "drop")',
        "whole",
        REFEREE,
    ),
]
_runs = [
    ("an epoch's loss is the mean of its batches'", "self.loss += loss * images", "self.loss += loss * 9", EPOCH),
    ("a torn last record is read", '.split("\\n")[:-1]', ".splitlines()", AGAIN),
    (
        "records of steps after the checkpoint stay",
        'return bool(record["step"] <= position.step)',
        "return True",
        AGAIN,
    ),
    (
        "records of epochs after the checkpoint stay",
        'return bool(record["epoch"] <= position.evaluated)',
        "return True",
        AGAIN,
    ),
    (
        "whatever is JSON is a record",
        "            _RECORD.validate_json(line)\n",
        "",
        [f"{TRAIN}test_a_damaged_run_is_named_and_the_others_are_listed"],
    ),
]
_train = [
    (
        "a run with weights begins with a state of zeros",
        "state = settings.recipe.optimizer.begin_state(params)",
        "state = {k: 0 * x for k, x in settings.recipe.optimizer.begin_state(params).items()}",
        [f"{START}test_a_run_with_weights_begins_with_the_state_of_its_optimizer"],
    ),
    (
        "a run that was interrupted before --steps counts as done",
        "reached = stop_after is not None and result.step >= stop_after",
        "reached = stop_after is not None",
        PART,
    ),
    ("divergence is no problem", ' or answer.facts.get("diverged")', "", PART),
    (
        "the next backend begins after an interrupt",
        "        if result.problem is not None:\n            break\n",
        "",
        PART,
    ),
    (
        "a run goes on with other images",
        "        if sha256 != part.settings.data_sha256:",
        "        if False:",
        [f"{TRAIN}TestFailures::test_other_images_than_it_began_with_are_refused"],
    ),
    ("a run's speed is the mean over its records", "statistics.median(speeds)", "statistics.mean(speeds)", SUMMARY),
    ("a run's results are its first epoch's", "last = epochs[-1]", "last = epochs[0]", SUMMARY),
    (
        "a run is complete after any epoch",
        "complete = position.evaluated == settings.recipe.epochs",
        "complete = position.evaluated > 0",
        SUMMARY,
    ),
    (
        "a run's steps are those of its last record",
        "Result(backend, position.step, settings.steps, complete)",
        'Result(backend, records[-1]["step"] if records else 0, settings.steps, complete)',
        [f"{TRAIN}test_steps_are_one_number_wherever_they_are_said"],
    ),
    (
        "results count that were never saved",
        " if runs.is_past(record, position)]",
        "]",
        SUMMARY,
    ),
    (
        "what has trained has no results because a later backend refuses",
        "if answer.refused is not None and not results:",
        "if answer.refused is not None:",
        [f"{TRAIN}test_what_a_later_backend_refuses_is_its_problem_and_the_others_have_results"],
    ),
    (
        "a refused run goes with everything in its folder",
        "with suppress(OSError):  # something else is in it\n            part.folder.parent.rmdir()",
        "shutil.rmtree(part.folder.parent)",
        [f"{TRAIN}test_a_folder_whose_run_was_refused_can_be_used_again"],
    ),
    (
        "a backend's own checkpoint is lost to another's",
        "    if backend in folders and (folders[backend] / CHECKPOINT).exists():",
        "    if False:",
        REOPENING,
    ),
    (
        "a backend goes on from any of several checkpoints",
        "    if len(sources) != 1:",
        "    if not sources:",
        REOPENING,
    ),
    (
        "a run begins on the devices of this machine that torchrun did not start",
        "devices or started_here(part.backend) or part.devices",
        "devices or part.devices",
        [f"{PARALLEL}test_a_run_goes_on_with_its_devices_unless_told_otherwise"],
    ),
]
_command = [
    (
        "the status is 0 however far the backends are apart",
        "raise typer.Exit(0 if near and not problems else 1)",
        "raise typer.Exit(0 if not problems else 1)",
        [f"{TRAIN}test_the_status_says_whether_a_runs_backends_are_within_a_bound"],
    ),
    (
        "the command exits with 0 after a crash in training",
        "raise typer.Exit(0 if all(result.problem is None for result in results) else 1)",
        "raise typer.Exit(0)",
        [f"{TRAIN}TestFailures::test_a_backend_that_crashes_ends_with_status_1"],
    ),
    (
        "a refused run stays",
        "            discard(parts)\n",
        "            pass\n",
        [f"{TRAIN}test_a_folder_whose_run_was_refused_can_be_used_again"],
    ),
    (
        "--resume takes settings, and ignores them",
        "if refused := [word for name, word in typed(context).items() if name not in _WITH_RESUME]:",
        "if refused := []:",
        [f"{TRAIN}TestFailures::test_wrong_usage_is_refused"],
    ),
]
_start = [
    (
        "a network is evaluated on other classes",
        "len(dataset.classes) and start.classes in ((), dataset.classes):",
        "len(dataset.classes):",
        [f"{TRAIN}test_evaluation_on_other_classes_is_refused"],
    ),
    (
        "weights for BGR see RGB",
        "params[first][:, ::-1]",
        "params[first]",
        [f"{START}test_batches_mean_to_the_rewritten_weights_what_pictures_mean_to_the_file[BGR]"],
    ),
    (
        "weights for pixels up to 255 see pixels up to 1",
        "x / (255 * prepare.scale)",
        "x",
        [f"{START}test_batches_mean_to_the_rewritten_weights_what_pictures_mean_to_the_file[BGR]"],
    ),
    (
        "a classifier of other classes goes on",
        " and start.classes in ((), settings.classes)",
        "",
        [f"{START}test_what_gives_the_logits_is_new_where_the_classes_are_others[other names]"],
    ),
    (
        "a training on weights begins elsewhere",
        "(x if name in anew else start.params[name])",
        "x",
        [f"{START}test_a_training_begins_with_the_weights_of_a_file"],
    ),
]
_state = [
    (
        "a checkpoint holds no optimizer",
        " | {STATE + name: plain(x) for name, x in state.items()}",
        "",
        _resumed("first"),
    ),
]
_scores = [
    ("a confusion matrix has predictions down", "(labels, logits.argmax(1))", "(logits.argmax(1), labels)", SCORES),
    ("the last batch counts as a full one", "            seen += len(labels)\n", "            seen += batch\n", SCORES),
    (
        "accuracy is the share of the classes",
        "np.trace(self.confusion) / self.confusion.sum()",
        "np.trace(self.confusion) / len(self.confusion)",
        SCORES,
    ),
    ("test images are not normalized", "dtype=dtype, mean=mean, std=std))", "dtype=dtype, mean=0.0, std=1.0))", EPOCH),
    (
        "an evaluation that is stopped goes on reading",
        "with closing(evaluation_batches(split, batch, dtype=dtype, mean=mean, std=std)) as batches:",
        "if batches := evaluation_batches(split, batch, dtype=dtype, mean=mean, std=std):",
        [f"{LOOP}test_an_evaluation_that_is_stopped_leaves_no_thread_behind"],
    ),
]
_screen = [
    (
        "recall and precision are exchanged",
        "images = int(confusion[number].sum())\n        predicted = int(confusion[:, number].sum())",
        "images = int(confusion[:, number].sum())\n        predicted = int(confusion[number].sum())",
        CLASSES,
    ),
    (
        "a class is shown with who is taken for it",
        "= confusion[number].copy()",
        "= confusion[:, number].copy()",
        CLASSES,
    ),
]
_figures = [
    ("a dollar in a name is mathematics", ', "parse_math": False}', "}", WHOLE),
    (
        "letters that no font has are boxes",
        "ascii(c)[1:-1] if c in self.missing else c for",
        "c for",
        [f"{TRAIN}test_letters_that_no_font_has_are_written_as_in_python_and_named"],
    ),
]
_curves = [
    ("a single step is a line that nobody sees", '"o" if len(x) == 1 else None', "None", WHOLE),
    ("the curve of the test images is that of training", 'record[f"test_{key}"]', 'record[f"train_{key}"]', CURVES),
    (
        "epochs are drawn as steps",
        'x = [record["step"] for record in epochs]',
        'x = [record["epoch"] for record in epochs]',
        CURVES,
    ),
    (
        "a confusion matrix is shaded by its columns",
        "confusion.sum(1, keepdims=True)",
        "confusion.sum(0, keepdims=True)",
        CONFUSION,
    ),
    ("a confusion matrix is labeled across the diagonal", "axis.text(j, i,", "axis.text(i, j,", CONFUSION),
    (
        "TensorBoard gets epochs as steps",
        'value, record["step"])',
        'value, record["epoch"])',
        [f"{TRAIN}test_tensorboard_gets_every_number_under_its_step"],
    ),
]
_apart = [
    (
        "a loss that is not a number is no distance",
        "if not all(map(math.isfinite, row)):",
        "if False:",
        [f"{TRAIN}test_losses_that_are_not_finite_are_infinitely_far_apart"],
    ),
    (
        "the losses after the last record are lost",
        " + [(position.step, position.losses)]",
        "",
        [f"{TRAIN}test_every_steps_loss_is_kept_also_of_those_after_the_last_record"],
    ),
    (
        "backends are within a bound whatever their weights are",
        "max(*self.losses.values(), *self.weights.values())",
        "max(self.losses.values())",
        [f"{TRAIN}test_backends_are_apart_by_their_losses_and_weights"],
    ),
    (
        "runs of other settings are compared",
        "if any(state[0] != first[0] for",
        "if False and any(state[0] != first[0] for",
        [f"{TRAIN}test_only_what_can_be_compared_is_said_to_be_within_a_bound"],
    ),
]
_shares = [
    ("the first image counts twice where a device has none", "else (slice(0, 1), 0)", "else (slice(0, 1), 1)", SHARES),
    (
        "a process asks itself only whether to stop",
        "bool(self.total([flag])[0])",
        "bool(flag)",
        ALIKE,
    ),
    (
        "processes that begin differently are taken for alike",
        "return all(s * s == self.processes * q for s, q in zip(sums, squares, strict=True))",
        "return all(s * s <= self.processes * q for s, q in zip(sums, squares, strict=True))",
        ALIKE,
    ),
    (
        "batch norm's share of an epoch's last batch is not checked",
        "    for count in counts:",
        "    for count in counts[:1]:",
        [f"{PARALLEL}test_batch_norm_refuses_a_share_of_one_image"],
    ),
    (
        "a process by itself counts as torchrun's",
        'return int(here) if backend == "pt" and here and processes(backend) > 1 else None',
        'return int(here) if backend == "pt" and here else None',
        [f"{PARALLEL}test_processes_are_counted_from_what_started_them"],
    ),
]
_pt = [
    (
        "a partial batch counts whole where two devices share it",
        "step(self.replica, optimizer, x, y, shared, scale)",
        "step(self.replica, optimizer, x, y, shared)",
        _devices("pt"),
    ),
    ("gradients of two devices are added up", "bucket.buffer().mul_(self.weight)", "bucket.buffer()", _devices("pt")),
    ("loss and hits are a share's", "        dist.all_reduce(sums)\n", "", _devices("pt")),
    ("each device has the masks of the first", "mask[rows] for", "mask[: len(images[rows])] for", _devices("pt")),
    (
        "an image that does not count is a hit",
        "share.correct.double() * (count > 0)",
        "share.correct.double()",
        _devices("pt"),
    ),
]
_mx = [
    ("means of two shares are added up", "outputs, y) * (count / len(images))", "outputs, y)", _devices("mx")),
    (
        "running statistics are the last share's",
        "statistics[0], strict=True)",
        "statistics[-1], strict=True)",
        _devices("mx"),
    ),
    ("devices go apart after a step", "            for copy in others:", "            for copy in []:", _devices("mx")),
    ("gradients of two devices are not clipped", "        clip(self)\n", "", _devices("mx")),
]
_jax = [
    (
        "a batch that cannot be split is",
        "self.everywhere if len(images) % self.devices else self.split",
        "self.split",
        _devices("jax"),
    ),
    (
        "a batch size that cannot be split is accepted",
        "        if batch % self.devices:",
        "        if False:",
        [f"{PARALLEL}test_jax_refuses_a_batch_that_it_cannot_split_evenly"],
    ),
]
_mx_step = [
    (
        "mx: a partial batch counts whole",
        "value.backward(value.ones_like() * scale)",
        "value.backward()",
        _partial("nominal", "mx"),
    ),
]
_jax_step = [
    (
        "jax: the loss of a partial batch is shown scaled",
        "return scale * value, (value, outputs.logits)",
        "return scale * value, (scale * value, outputs.logits)",
        _partial("nominal", "jax"),
    ),
]
_processes = [
    (
        "SIGTERM ends the command and leaves its workers",
        "numbers = (signal.SIGINT, signal.SIGTERM)",
        "numbers = (signal.SIGINT,)",
        [f"{PARALLEL}test_a_signal_to_the_command_reaches_the_first_worker"],
    ),
    (
        "a process that waits for a dead one waits forever",
        "    for worker in workers:\n        worker.kill()\n",
        "",
        [f"{PARALLEL}test_a_process_that_waits_forever_is_ended"],
    ),
    (
        "the process that noticed is named instead of the one that died",
        "min(failed, key=lambda rank: done[rank].returncode >= 0)",
        "failed[0]",
        [f"{PARALLEL}test_of_the_processes_that_fail_the_killed_one_is_named"],
    ),
    (
        "only the first process may refuse",
        "refusals = [answer for answer in answers if answer and answer.refused]",
        "refusals = [answer for answer in answers[:1] if answer and answer.refused]",
        [f"{PARALLEL}test_of_several_workers_any_may_refuse"],
    ),
]

FAULTS = [
    Fault(name, file, old, new, tuple(tests))
    for file, faults in {
        "harness/training/loop.py": _loop,
        "harness/training/recipe.py": _recipe,
        "harness/training/runs.py": _runs,
        "harness/training/train.py": _train,
        "harness/cli/train.py": _command,
        "harness/training/start.py": _start,
        "harness/weights/checkpoint.py": _state,
        "harness/training/evaluate.py": _scores,
        "harness/training/display.py": _screen,
        "harness/figures.py": _figures,
        "harness/training/curves.py": _curves,
        "harness/training/apart.py": _apart,
        "harness/backends/team.py": _shares,
        "googlenet_pt/parallel.py": _pt,
        "googlenet_mx/parallel.py": _mx,
        "googlenet_jax/parallel.py": _jax,
        "googlenet_mx/train.py": _mx_step,
        "googlenet_jax/train.py": _jax_step,
        "harness/backends/process.py": _processes,
    }.items()
    for name, old, new, tests in faults
]
