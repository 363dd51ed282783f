"""Faults of wiring, modes, steps and optimizers in the backends."""

from __future__ import annotations

from teeth.fault import Fault

_STAGES = "tests/test_networks.py::test_stages_and_logits_equal_the_referees"
_LOSS = "tests/test_networks.py::test_the_loss_equals_the_referees"
_STEP = "tests/test_networks.py::test_parameters_and_statistics_after_a_step_equal_the_referees"
_STEPS = "tests/test_backend_optimizers.py::test_steps_equal_the_referees"
_HEADS = "tests/test_training.py::test_steps_with_batch_norm_heads_and_given_dropout_masks_equal_the_referees"
_LOOK = "tests/test_training.py::test_looking_at_a_model_does_not_change_it"
_RESUME = "tests/test_backend_optimizers.py::test_going_on_from_a_dumped_state_changes_nothing"
_STATE = "tests/test_backend_optimizers.py::test_a_state_has_the_canonical_names_shapes_and_values"
_OPERATION = "tests/test_operations.py::test_the_operation_is_the_referees"
_TRAINING = "tests/test_trajectory.py::test_a_training_equals_the_referees"
_SLOWLY = "tests/test_trajectory.py::test_a_training_that_jax_compiles_slowly_equals_the_referees"
_PREDICTOR = "tests/test_tuned.py::test_the_predictor_computes_what_the_referee_does"
_KEEPS = "tests/test_tuned.py::test_the_predictor_keeps_the_weights_that_it_was_made_with"

_CONV2 = 'self.conv2 = Conv(nodes["conv2"])\n        self.norm2'
_POOL1 = '        x = watch("pool1", self.pool1(x))  # 56 x 56 x 64\n'
_NORM1 = '        if self.norm1 is not None:\n            x = watch("norm1", self.norm1(x))  # 56 x 56 x 64\n'
_CONV2_1 = '        x = watch("conv2_1", self.conv2_1(x))  # 112 x 112 x 128\n'
_BEHIND = '# {}\n        x = watch("fc6", self.fc6(x))  # 4096\n        x = watch("fc7", self.fc7(x'
_POOL2 = '        x = watch("pool2", self.pool2(x))  # 56 x 56 x 128\n'


def _masked(backend: str, case: str) -> str:
    """The test that finds a lost mask of a thin ancestor: with gradients, but in JAX, which compiles these slowly."""
    name, size, _ = case.split("-")
    return (
        f"{_LOSS}[jax-{case}-float64]" if backend == "jax" else f"{_SLOWLY}[{backend}-thin-{name}-dropout-{size}-SGD]"
    )


_WIRING = [
    fault
    for backend in ("pt", "mx", "jax")
    for model, ancestors in ((f"googlenet_{backend}/googlenet.py", f"googlenet_{backend}/ancestors.py"),)
    for heads in ((f"{_LOSS}[jax-torchvision-33-4-float64]",) if backend == "jax" else (f"{_HEADS}[{backend}]",),)
    for fault in (
        Fault(
            f"{backend}: ReLU in stage 2, whatever the preset says",
            model,
            _CONV2,
            _CONV2.replace("\n", '\n        self.conv2.activation = "relu"\n'),
            (f"{_OPERATION}[{backend}-convolution-conv2-without-relu]",),
        ),
        Fault(
            f"{backend}: no ReLU after the second convolution of stage 2",
            model,
            _CONV2,
            _CONV2.replace("\n", "\n        self.conv2.activation = None\n"),
            (f"{_STAGES}[{backend}-bvlc-32-2-float64]",),
            trap="relu-missing" if backend == "pt" else None,
        ),
        Fault(
            f"{backend}: LRN comes before the first pool",
            model,
            _POOL1 + _NORM1,
            _NORM1 + _POOL1,
            (f"{_STAGES}[{backend}-bvlc-32-2-float64]",),
        ),
        Fault(
            f"{backend}: the second head drops by the first head's mask",
            model,
            'masks.get("aux2")',
            'masks.get("aux1")',
            heads,
        ),
        Fault(
            f"{backend}: the second head's logits take the first's place",
            model,
            'heads["aux2"] = watch(',
            'heads["aux1"] = watch(',
            (f"{_LOSS}[{backend}-torchvision-33-4-float64]",),
        ),
        Fault(
            f"{backend}: LeNet's second dense layer leads nowhere",
            ancestors,
            'x = watch("fc4", self.fc4(x))',
            'watch("fc4", self.fc4(x))',
            (f"{_STAGES}[{backend}-lenet-28-4-float64]",),
        ),
        Fault(
            f"{backend}: AlexNet's fourth convolution leads nowhere",
            ancestors,
            'x = watch("conv4", self.conv4(x))',
            'watch("conv4", self.conv4(x))',
            (f"{_STAGES}[{backend}-alexnet-67-2-float64]",),
        ),
        Fault(
            f"{backend}: VGG pools before its second convolution",
            ancestors,
            _CONV2_1 + _POOL2,
            _POOL2 + _CONV2_1,
            (f"{_STAGES}[{backend}-vgg11-33-2-float64]",),
        ),
        Fault(
            f"{backend}: NiN applies the last convolution of a block twice, and the one before it not at all",
            ancestors,
            'watch("conv2_mlp1", self.conv2_mlp1(x))',
            'watch("conv2_mlp1", self.conv2_mlp2(x))',
            (f"{_STAGES}[{backend}-nin-67-4-float64]",),
        ),
        Fault(
            f"{backend}: AlexNet's first mask is not handed over",
            ancestors,
            _BEHIND.format("5 x 5 x 256") + ', masks.get("fc7")))',
            _BEHIND.format("5 x 5 x 256") + "))",
            (_masked(backend, "alexnet-67-2"),),
        ),
        Fault(
            f"{backend}: VGG's first mask is not handed over",
            ancestors,
            _BEHIND.format("7 x 7 x 512") + ', masks.get("fc7")))',
            _BEHIND.format("7 x 7 x 512") + "))",
            (_masked(backend, "vgg11-33-2"),),
        ),
        Fault(
            f"{backend}: NiN's mask is not handed over",
            ancestors,
            'self.conv4(x, masks.get("conv4"))',
            "self.conv4(x)",
            (_masked(backend, "nin-67-4"),),
        ),
    )
]

FAULTS = [
    *_WIRING,
    # ----------------------------------------------------------------------------------------------------------- modes
    Fault(
        "pt: prediction in training mode: dropout is on, and batch norm uses the batch",
        "googlenet_pt/predict.py",
        "with mode(model, training=False), torch.inference_mode():\n        return to_numpy(",
        "with mode(model, training=True), torch.inference_mode():\n        return to_numpy(",
        (f"{_STAGES}[pt-lenet-bn-29-4-float64]", "tests/test_training.py::test_inference_drops_nothing[pt]"),
        trap="norm-training",
    ),
    Fault(
        "pt: dropout stays on in inference",
        "googlenet_pt/layers.py",
        "return super().forward(x) if mask is None",
        "return F.dropout(x, self.p) if mask is None",
        ("tests/test_training.py::test_inference_drops_nothing[pt]",),
        trap="dropout-on",
    ),
    Fault(
        "mx: prediction in training mode",
        "googlenet_mx/predict.py",
        "    with autograd.predict_mode():\n        return model(",
        "    with autograd.train_mode():\n        return model(",
        (f"{_STAGES}[mx-lenet-bn-29-4-float64]",),
    ),
    Fault(
        "jax: prediction in training mode",
        "googlenet_jax/predict.py",
        "    with mode(model, training=False):\n        return np.array(_logits(",
        "    with mode(model, training=True):\n        return np.array(_logits(",
        (f"{_LOOK}[jax]",),
    ),
    Fault(
        "pt: the heads run for whoever watches, and not in training",
        "googlenet_pt/network.py",
        "self.config.aux and (self.training or watch is not ignore)",
        "self.config.aux and watch is not ignore",
        (f"{_LOSS}[pt-torchvision-33-4-float64]",),
    ),
    Fault(
        "mx: the heads run for whoever watches, and not in training",
        "googlenet_mx/network.py",
        "self.config.aux and (autograd.is_training() or watch is not ignore)",
        "self.config.aux and watch is not ignore",
        (f"{_LOSS}[mx-torchvision-33-4-float64]",),
    ),
    Fault(
        "jax: the heads run for whoever watches, and not in training",
        "googlenet_jax/network.py",
        "self.config.aux and (not self.deterministic or watch is not ignore)",
        "self.config.aux and watch is not ignore",
        (f"{_LOSS}[jax-torchvision-33-4-float64]",),
    ),
    Fault(
        "pt: a step in inference mode",
        "googlenet_pt/train.py",
        "    model.train()\n    optimizer.zero_grad()",
        "    model.eval()\n    optimizer.zero_grad()",
        (f"{_STEP}[pt-lenet-bn-29-4-float64]",),
    ),
    Fault(
        "jax: a step in the mode that the model is in",
        "googlenet_jax/train.py",
        "    if model.deterministic:\n        model.train()\n",
        "",
        (f"{_TRAINING}[jax-lenet-bn-29-SGD]",),
    ),
    Fault(
        "pt: looking at gradients moves the running statistics",
        "googlenet_pt/probe.py",
        "{name: buffer.clone() for",
        "{name: buffer for",
        (f"{_LOOK}[pt]",),
    ),
    Fault(
        "jax: looking at gradients moves the running statistics",
        "googlenet_jax/probe.py",
        "value_and_grads(nnx.clone(model), x, y, {})",
        "value_and_grads(model, x, y, {})",
        (f"{_LOOK}[jax]",),
    ),
    Fault(
        "mx: looking at gradients moves the running statistics",
        "googlenet_mx/probe.py",
        "        ends, _ = model.training_pass(x, *model.training_pass.masks(x, {}))\n"
        "        value = loss(model.config, model.training_pass.outputs(ends), y)",
        "        value = loss(model.config, model(x), y)",
        (f"{_LOOK}[mx]",),
    ),
    Fault(
        "mx: the running statistics do not move",
        "googlenet_mx/network.py",
        "                norm.update(*batch)",
        "                pass",
        (f"{_STEP}[mx-lenet-bn-29-4-float64]",),
        trap="norm-forward-only",
    ),
    # ------------------------------------------------------------------------------------------------------------ steps
    Fault(
        "pt: gradients add up from step to step",
        "googlenet_pt/train.py",
        "    optimizer.zero_grad()\n",
        "",
        (f"{_TRAINING}[pt-lenet-28-SGD]",),
    ),
    Fault(
        "pt: hits are counted among the auxiliary head's",
        "googlenet_pt/train.py",
        "(outputs.logits.argmax(1) == y).sum()",
        "(outputs.logits.argmin(1) == y).sum()",
        (f"{_TRAINING}[pt-lenet-28-SGD]",),
    ),
    Fault(
        "mx: hits are of the smallest logit",
        "googlenet_mx/train.py",
        "outputs.logits.argmax(axis=1)",
        "outputs.logits.argmin(axis=1)",
        (f"{_TRAINING}[mx-lenet-28-SGD]",),
    ),
    Fault(
        "jax: hits are of the smallest logit",
        "googlenet_jax/train.py",
        "(logits.argmax(-1) == y).sum()",
        "(logits.argmin(-1) == y).sum()",
        (f"{_TRAINING}[jax-lenet-28-SGD]",),
    ),
    Fault(
        "jax: a step kept for another model is used again",
        "googlenet_jax/train.py",
        "if known is None or known[0]() is not model:",
        "if known is None:",
        ("tests/test_tuned.py::test_a_step_that_jax_keeps_is_of_that_model_and_goes_with_its_optimizer",),
    ),
    Fault(
        "jax: what a step computes does not reach the model",
        "googlenet_jax/train.py",
        "            _set_array(variable, array)\n",
        "            pass\n",
        (f"{_TRAINING}[jax-lenet-28-SGD]",),
    ),
    # ------------------------------------------------------------------------------------------------------- optimizers
    Fault(
        "pt: weight decay of biases too",
        "googlenet_pt/optimizer.py",
        "groups[spec.is_decayed(name)].append(parameter)",
        "groups[True].append(parameter)",
        (f"{_STEPS}[pt-nesterov-weight-decay-clip-norm]",),
    ),
    Fault(
        "pt: Nesterov's momentum is plain momentum",
        "googlenet_pt/optimizer.py",
        "nesterov=optimizer.nesterov, ",
        "",
        (f"{_STEPS}[pt-nesterov-weight-decay-clip-norm]",),
    ),
    Fault(
        "pt: gradients are not clipped",
        "googlenet_pt/optimizer.py",
        "    if norm is not None:",
        "    if False:",
        (f"{_STEPS}[pt-nesterov-weight-decay-clip-norm]",),
    ),
    Fault(
        "pt: gradients are clipped with PyTorch's 1e-6 in the denominator",
        "googlenet_pt/optimizer.py",
        "(norm / torch.nn.utils.get_total_norm(grads))",
        "(norm / (torch.nn.utils.get_total_norm(grads) + 1e-6))",
        (f"{_STEPS}[pt-nesterov-weight-decay-clip-norm]",),
    ),
    Fault(
        "pt: AdamW decays as Adam would, inside the gradient",
        "googlenet_pt/optimizer.py",
        "kind = torch.optim.AdamW if isinstance(optimizer, spec.AdamW) else torch.optim.Adam",
        "kind = torch.optim.Adam",
        (f"{_STEPS}[pt-adamw-label-smoothing-average]",),
    ),
    Fault(
        "pt: Adam's epsilon is the framework's default",
        "googlenet_pt/optimizer.py",
        "eps=optimizer.epsilon, ",
        "eps=1e-7, ",
        (f"{_STEPS}[pt-adamw-label-smoothing-average]",),
    ),
    Fault(
        "pt: Adam's count of steps is not resumed",
        "googlenet_pt/optimizer.py",
        'torch.tensor(float(state["t"]), device=parameter.device)',
        "torch.tensor(0.0, device=parameter.device)",
        (f"{_RESUME}[pt-adam]",),
    ),
    Fault(
        "pt: Adam's two means are exchanged in the state",
        "googlenet_pt/optimizer.py",
        '"m": "exp_avg", "v": "exp_avg_sq"',
        '"m": "exp_avg_sq", "v": "exp_avg"',
        (f"{_STATE}[pt-adam]",),
    ),
    Fault(
        "pt: the rate stays as it was",
        "googlenet_pt/optimizer.py",
        '        group["lr"] = rate',
        "        pass",
        (f"{_TRAINING}[pt-lenet-28-SGD]",),
    ),
    Fault(
        "pt: RMSProp with epsilon outside the root, as PyTorch's own has it",
        "googlenet_pt/optimizer.py",
        "            roots = torch._foreach_add(squares, row.epsilon)\n            torch._foreach_sqrt_(roots)",
        "            roots = torch._foreach_sqrt(squares)\n            torch._foreach_add_(roots, row.epsilon)",
        (f"{_STEPS}[pt-rmsprop-and-everything]",),
    ),
    Fault(
        "pt: the average's count of steps is not resumed",
        "googlenet_pt/optimizer.py",
        'optimizer.average.t.fill_(float(state["t"]))',
        "optimizer.average.t.fill_(0.0)",
        (f"{_RESUME}[pt-rmsprop]",),
    ),
    Fault(
        "mx: gradients are clipped with the operator that rounds its bounds to float32",
        "googlenet_mx/optimizer.py",
        "nd.maximum(nd.minimum(grad, value), -value)",
        "nd.clip(grad, -value, value)",
        (f"{_STEPS}[mx-rmsprop-and-everything]",),
    ),
    Fault(
        "jax: RMSProp's buffer has the sign of optax's own",
        "googlenet_jax/optimizer.py",
        "learning_rate, flip_sign=False))\n"
        "            steps += [optax.trace(optimizer.momentum)] if optimizer.momentum else []\n"
        "            steps.append(optax.scale(-1.0))",
        "learning_rate))\n"
        "            steps += [optax.trace(optimizer.momentum)] if optimizer.momentum else []\n"
        "            steps.append(optax.scale(1.0))",
        (f"{_STEPS}[jax-rmsprop-and-everything]",),
    ),
    Fault(
        "jax: the average's decay is divided in float32",
        "googlenet_jax/optimizer.py",
        "t = count.astype(float)",
        "t = count",
        (f"{_STEPS}[jax-rmsprop-and-everything]",),
    ),
    Fault(
        "mx: several processes get the synchronous engine",
        "googlenet_mx/device.py",
        '_has_cuda() or processes("mx") > 1:',
        "_has_cuda():",
        ("tests/test_settings.py::test_one_device_on_a_cpu_gets_the_synchronous_engine[given4-False-None-None]",),
    ),
    Fault(
        "mx: float64's rate is rounded to float32",
        "googlenet_mx/optimizer.py",
        "if weight.dtype == np.float32:  # in one operation",
        "if True:  # in one operation",
        (f"{_STEPS}[mx-nesterov-weight-decay-clip-norm]",),
    ),
    Fault(
        "mx: the rate inside the momentum buffer",
        "googlenet_mx/optimizer.py",
        "            buffer += grad\n            grad = grad + mu * buffer if self.textbook.nesterov else buffer\n",
        "            buffer += self.learning_rate * grad\n            grad = buffer / self.learning_rate\n",
        (f"{_TRAINING}[mx-lenet-28-SGD]",),
    ),
    Fault(
        "mx: Nesterov's momentum is plain momentum",
        "googlenet_mx/optimizer.py",
        "grad = grad + mu * buffer if self.textbook.nesterov else buffer",
        "grad = buffer",
        (f"{_STEPS}[mx-nesterov-weight-decay-clip-norm]",),
    ),
    Fault(
        "mx: weight decay of biases too",
        "googlenet_mx/optimizer.py",
        "parameter.wd_mult = float(spec.is_decayed(name))",
        "parameter.wd_mult = 1.0",
        (f"{_STEPS}[mx-nesterov-weight-decay-clip-norm]",),
    ),
    Fault(
        "mx: epsilon is left out of Adam's bias correction, as MXNet's own leaves it",
        "googlenet_mx/optimizer.py",
        '"epsilon": textbook.epsilon * root',
        '"epsilon": textbook.epsilon',
        (f"{_STEPS}[mx-adamw-label-smoothing-average]", f"{_TRAINING}[mx-lenet-28-Adam]"),
    ),
    Fault(
        "mx: Adam's first mean is not corrected",
        "googlenet_mx/optimizer.py",
        "rate * root / (1 - beta1**t)",
        "rate * root",
        (f"{_STEPS}[mx-adamw-label-smoothing-average]",),
    ),
    Fault(
        "mx: Adam's count of steps is not resumed",
        "googlenet_mx/optimizer.py",
        'native.num_update = native.begin_num_update = int(state["t"])',
        "native.num_update = native.begin_num_update = 0",
        (f"{_RESUME}[mx-adam]",),
    ),
    Fault(
        "mx: gradients are not clipped",
        "googlenet_mx/train.py",
        "    clip(optimizer)\n",
        "",
        (f"{_STEPS}[mx-nesterov-weight-decay-clip-norm]",),
    ),
    Fault(
        "mx: clipping enlarges small gradients",
        "googlenet_mx/optimizer.py",
        "nd.broadcast_minimum(norm / total, nd.ones_like(total))",
        "norm / total",
        (f"{_STEPS}[mx-no-momentum-clip-norm-not-reached]",),
    ),
    Fault(
        "jax: weight decay of biases too",
        "googlenet_jax/optimizer.py",
        "optax.add_decayed_weights(optimizer.weight_decay, _decayed)",
        "optax.add_decayed_weights(optimizer.weight_decay)",
        (f"{_STEPS}[jax-nesterov-weight-decay-clip-norm]",),
    ),
    Fault(
        "jax: AdamW decays biases too",
        "googlenet_jax/optimizer.py",
        "weight_decay=optimizer.weight_decay, mask=_decayed)",
        "weight_decay=optimizer.weight_decay)",
        (f"{_STEPS}[jax-adamw-label-smoothing-average]",),
    ),
    Fault(
        "jax: Nesterov's momentum is plain momentum",
        "googlenet_jax/optimizer.py",
        "optimizer.momentum or None, optimizer.nesterov)",
        "optimizer.momentum or None)",
        (f"{_STEPS}[jax-nesterov-weight-decay-clip-norm]",),
    ),
    Fault(
        "jax: gradients are not clipped",
        "googlenet_jax/optimizer.py",
        "[optax.clip_by_global_norm(optimizer.clip_norm)]",
        "[]",
        (f"{_STEPS}[jax-nesterov-weight-decay-clip-norm]",),
    ),
    Fault(
        "jax: Adam's epsilon under the root",
        "googlenet_jax/optimizer.py",
        "optax.adam(learning_rate, optimizer.beta1, optimizer.beta2, optimizer.epsilon)",
        "optax.adam(learning_rate, optimizer.beta1, optimizer.beta2, 0.0, optimizer.epsilon)",
        (f"{_TRAINING}[jax-lenet-28-Adam]",),
    ),
    Fault(
        "jax: the rate stays as it was",
        "googlenet_jax/optimizer.py",
        "    variable[...] = jax.device_put(np.asarray(rate, old.dtype), old.sharding)",
        "    jax.device_put(np.asarray(rate, old.dtype), old.sharding)",
        (f"{_TRAINING}[jax-lenet-28-SGD]",),
    ),
    Fault(
        "jax: Adam's two means are exchanged in the state",
        "googlenet_jax/optimizer.py",
        '"mu": "m", "nu": "v"',
        '"mu": "v", "nu": "m"',
        (f"{_STATE}[jax-adam]",),
    ),
    # ------------------------------------------------------------------------------------------------------- predictors
    Fault(
        "pt: the predictor follows the model's weights",
        "googlenet_pt/predict.py",
        "frozen = copy.deepcopy(model).eval()",
        "frozen = copy.copy(model).eval()",
        (f"{_KEEPS}[pt]",),
    ),
    Fault(
        "pt: batch norm's epsilon is left out where it is folded into the weights",
        "googlenet_pt/predict.py",
        "torch.sqrt(norm.running_var + norm.eps)",
        "torch.sqrt(norm.running_var)",
        (f"{_PREDICTOR}[pt-torchvision-33-4-float32]",),
    ),
    Fault(
        "pt: a fused convolution has no ReLU",
        "googlenet_pt/predict.py",
        'self.activation = conv.activation or "none"',
        'self.activation = "none"',
        (f"{_PREDICTOR}[pt-bvlc-32-2-float32]",),
    ),
    Fault(
        "pt: the fused block joins its branches in another order",
        "googlenet_pt/predict.py",
        "[branch1x1, self.branch3x3(reduced3x3), self.branch5x5(reduced5x5), pooled]",
        "[branch1x1, self.branch3x3(reduced3x3), pooled, self.branch5x5(reduced5x5)]",
        (f"{_PREDICTOR}[pt-bvlc-32-2-float32]",),
    ),
    Fault(
        "pt: the predictor fuses no convolution within a block",
        "googlenet_pt/predict.py",
        "            _fuse(layer, dtype)",
        "            pass",
        ("tests/test_tuned.py::test_every_convolution_of_pytorch_s_predictor_is_fused",),
    ),
    Fault(
        "pt: the publishers' network is in channels_last",
        "googlenet_pt/published.py",
        "params=params, tuned=False)",
        "params=params)",
        ("tests/test_textbook.py::test_nothing_is_tuned_in_the_publishers_network",),
    ),
    Fault(
        "pt: the publishers' network predicts in training mode",
        "googlenet_pt/published.py",
        "    model.eval()",
        "    model.train()",
        ("tests/test_textbook.py::test_the_publishers_network_equals_the_referees[pt]",),
    ),
    Fault(
        "mx: the publishers' optimizer divides by the batch once more",
        "googlenet_mx/published.py",
        "optimizer.step(1)",
        "optimizer.step(len(x))",
        ("tests/test_textbook.py::test_the_publishers_network_equals_the_referees[mx]",),
    ),
    Fault(
        "mx: the predictor follows the model's weights",
        "googlenet_mx/predict.py",
        "arguments = {name: arrays[name].copy() for",
        "arguments = {name: arrays[name] for",
        (f"{_KEEPS}[mx]",),
    ),
    Fault(
        "mx: the predictor computes the images that it was made with",
        "googlenet_mx/predict.py",
        "graph(*given[:data], x, *given[data + 1 :])",
        "graph(*given)",
        (f"{_PREDICTOR}[mx-bvlc-32-2-float32]",),
    ),
    Fault(
        "jax: the predictor's weights go with the model's next step",
        "googlenet_jax/predict.py",
        "partial(compiled, list(map(jnp.copy, leaves)))",
        "partial(compiled, leaves)",
        (f"{_KEEPS}[jax]",),
    ),
    # ----------------------------------------------------------------------------- traps of the documentation, as faults
    Fault(
        "pt: an average over 7 x 7 pixels for the global one",
        "googlenet_pt/layers.py",
        "F.adaptive_avg_pool2d(x, op.side)",
        "F.adaptive_avg_pool2d(x, op.side) if op.side > 1 else F.avg_pool2d(x, min(7, *x.shape[2:]))",
        ("tests/test_operations.py",),
        trap="pool-fixed",
    ),
    Fault(
        "pt: epsilon is rounded to float32",
        "googlenet_pt/layers.py",
        "kind(node.out_channels, norm.epsilon,",
        "kind(node.out_channels, torch.tensor(norm.epsilon).item(),",
        (f"{_STAGES}[pt-torchvision-33-4-float64]",),
        trap="norm-epsilon-float32",
    ),
    Fault(
        "mx: LRN's k is MXNet's default",
        "googlenet_mx/layers.py",
        "(lrn.k + lrn.alpha",
        "(2 + lrn.alpha",
        (f"{_STAGES}[mx-bvlc-32-2-float64]",),
        trap="lrn-k",
    ),
    Fault(
        "pt: the loss takes a softmax of a softmax",
        "googlenet_pt/train.py",
        "F.cross_entropy(outputs.logits, labels",
        "F.cross_entropy(outputs.logits.softmax(1), labels",
        (f"{_LOSS}[pt-lenet-28-4-float64]",),
        trap="loss-probabilities",
    ),
    Fault(
        "mx: the loss takes logits for logarithms of probabilities",
        "googlenet_mx/train.py",
        "SoftmaxCrossEntropyLoss(sparse_label=False)",
        "SoftmaxCrossEntropyLoss(sparse_label=False, from_logits=True)",
        (f"{_LOSS}[mx-lenet-28-4-float64]",),
        trap="loss-from-logits",
    ),
    Fault(
        "jax: a square kernel of one pixel is not transposed",
        "googlenet_jax/params.py",
        "return x.transpose({4: (2, 3, 1, 0)",
        "return x.transpose({4: (2, 3, 1, 0) if x.shape[0] != x.shape[1] else (2, 3, 0, 1)",
        (f"{_STAGES}[jax-nin-67-4-float64]",),
        trap="kernel-square",
    ),
    Fault(
        "jax: kernels are reshaped where they should be transposed",
        "googlenet_jax/params.py",
        "return x.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,), 0: ()}[x.ndim])",
        "return x.reshape((*x.shape[2:], x.shape[1], x.shape[0]) if x.ndim == 4 else x.T.shape)",
        (f"{_STAGES}[jax-lenet-28-4-float64]",),
        trap="kernel-reshaped",
    ),
    Fault(
        "initial values: biases are left as PyTorch draws them",
        "spec/init.py",
        "_uniform(math.sqrt(6 / sum(_fans(layer)))), _constant(0)",
        "_uniform(math.sqrt(6 / sum(_fans(layer)))), _uniform(1 / math.sqrt(_fans(layer)[0]))",
        ("tests/test_spec.py",),
        trap="default-biases",
    ),
]

_SHORT = "tests/test_inception.py::test_a_short_network_equals_the_referees"
_SHORT_JAX = "tests/test_inception.py::test_stages_of_a_short_network_equal_the_referees"
FAULTS += [
    fault
    for backend, short in (("pt", _SHORT), ("mx", _SHORT), ("jax", _SHORT_JAX))
    for file in (f"googlenet_{backend}/inception.py",)
    for fault in (
        Fault(
            f"{backend}: a split puts 3x1 before 1x3",
            file,
            "self.branch3x3_a(single),\n                self.branch3x3_b(single)",
            "self.branch3x3_b(single),\n                self.branch3x3_a(single)",
            (f"{short}[{backend}-inception-v4-107x139]",),
        ),
        Fault(
            f"{backend}: v4's first block puts its pool last",
            file,
            "[self.pool(x), self.branch3x3(x)]",
            "[self.branch3x3(x), self.pool(x)]",
            (f"{short}[{backend}-inception-v4-107x139]",),
        ),
        Fault(
            f"{backend}: a residual scales what goes around its branches",
            file,
            "            y = x + y\n",
            "            y = self.op.scale * x + y / self.op.scale\n",
            (f"{short}[{backend}-inception-resnet-v2-107x139]",),
        ),
        Fault(
            f"{backend}: every residual has a ReLU",
            file,
            "ACTIVATIONS[self.op.activation](",
            'ACTIVATIONS["relu"](',
            (f"{short}[{backend}-inception-resnet-v2-107x139]",),
        ),
    )
]
