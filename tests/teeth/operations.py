"""Faults in the operations of every backend."""

from __future__ import annotations

from teeth.fault import Fault

FILE = "tests/test_operations.py::"


def _case(backend, *cases):
    return [f"{FILE}test_the_operation_is_the_referees[{backend}-{case}]" for case in cases]


def _loss(backend, heads="with heads", smoothing="0.2"):
    name = "test_the_loss_is_the_weighted_sum_of_mean_smoothed_cross_entropies"
    return [f"{FILE}{name}[{backend}-{heads}-{smoothing}-float64]"]


def _block(backend):
    return [f"{FILE}test_the_textbooks_inception_block_is_the_referees[{backend}]"]


def _dropout(backend):
    name = "test_without_a_mask_dropout_draws_one_of_the_right_share_and_scales_what_it_keeps"
    return [f"{FILE}{name}[{backend}]"]


def _network(backend):
    if backend == "jax":  # whose steps with heads are compiled in the slow suite only
        return ["tests/test_networks.py::test_the_loss_equals_the_referees[jax-torchvision-33-4-float64]"]
    name = "test_steps_with_batch_norm_heads_and_given_dropout_masks_equal_the_referees"
    return [f"tests/test_training.py::{name}[{backend}]"]


def _convolution(kernel, strides, pads, size, by_xla):
    name = "test_jax_convolves_by_any_kernel_strides_and_pads"
    return [f"{FILE}{name}[{kernel}-{strides}-{pads}-{size}-{by_xla}-jax]"]


PADDED_POOL = "max-pool-3x3-stride-2-pad-1-floor-on-7x9"
CEIL_POOL = "max-pool-3x3-stride-2-pad-0-ceiling-on-6x8"
TALL_POOL = "max-pool-3x2-stride-2x1"
PADDED_AVERAGE = "average-3x3-with-its-padding"
UNPADDED_AVERAGE = "average-3x3-without-its-padding"
TALL_AVERAGE = "average-2x3-stride-2x1"
CONV = "convolution-3x3-stride-1-pad-1-on-7x9-relu"
STRIDED = "convolution-7x7-stride-2-pad-3-on-9x14-relu"
WIDE = "convolution-1x7-on-5x9"
STRIDED_DOWN = "convolution-3x1-stride-2x1-on-5x4"
ZERO = "convolution-then-relu-at-exactly-0"
HEAD = "head-on-14x14"
ADAPTIVE = "head-adaptive-on-7x9"
BLOCK = "Inception-on-5x6"
LRN = "local-response-norm-over-12-channels"
MAP = "dense-on-a-map-as-channels-height-width"
TRAINING = "batch-norm-of-maps-training"
INFERENCE = "batch-norm-of-maps-inference"
FROZEN = "batch-norm-of-maps-not-affine-training"
BIASED = "batch-norm-of-maps-biased-training"
BIASED_INFERENCE = "batch-norm-of-maps-biased-inference"
FROZEN = "batch-norm-of-maps-biased-not-affine-training"

PT, MX, JAX = (
    [
        # ---------------------------------------------------------------------------------------------- googlenet_pt
        Fault(
            "pt: the padding of max pools is lost",
            "googlenet_pt/layers.py",
            "self.op.strides, self.pads, ceil_mode",
            "self.op.strides, ceil_mode",
            (*_case("pt", PADDED_POOL),),
        ),
        Fault(
            "pt: max pools always round down",
            "googlenet_pt/layers.py",
            ", ceil_mode=self.op.ceil)",
            ")",
            (*_case("pt", CEIL_POOL),),
            trap="pool-floor",
        ),
        Fault(
            "pt: max pools have zeros outside the image",
            "googlenet_pt/layers.py",
            "F.max_pool2d(x, self.op.sides, self.op.strides, self.pads, ceil_mode",
            "F.max_pool2d(F.pad(x, [self.pads[0]] * 4), self.op.sides, self.op.strides, ceil_mode",
            (*_case("pt", PADDED_POOL),),
            trap="pool-zeros",
        ),
        Fault(
            "pt: windows of max pools are turned on their side",
            "googlenet_pt/layers.py",
            "F.max_pool2d(x, self.op.sides, ",
            "F.max_pool2d(x, self.op.sides[::-1], ",
            (*_case("pt", TALL_POOL),),
        ),
        Fault(
            "pt: what dropout keeps is not scaled",
            "googlenet_pt/layers.py",
            "x * mask / (1 - self.p)",
            "x * mask",
            (*_case("pt", "dropout-of-values"),),
        ),
        Fault(
            "pt: dropout is scaled by the fraction that it drops",
            "googlenet_pt/layers.py",
            "x * mask / (1 - self.p)",
            "x * mask / self.p",
            (*_case("pt", "dropout-of-maps"),),
        ),
        Fault(
            "pt: convolutions always have a ReLU",
            "googlenet_pt/layers.py",
            "self.activation = op.activation",
            'self.activation = "relu"',
            (*_case("pt", "convolution-conv2-without-relu"),),
        ),
        Fault(
            "pt: a convolution's pads down and across are exchanged",
            "googlenet_pt/layers.py",
            "op.strides, op.symmetric_pads, bias",
            "op.strides, op.symmetric_pads[::-1], bias",
            (*_case("pt", WIDE),),
        ),
        Fault(
            "pt: a convolution's strides down and across are exchanged",
            "googlenet_pt/layers.py",
            "op.sides, op.strides, op.symmetric_pads, bias",
            "op.sides, op.strides[::-1], op.symmetric_pads, bias",
            (*_case("pt", STRIDED_DOWN),),
        ),
        Fault(
            "pt: kernels are square",
            "googlenet_pt/layers.py",
            "super().__init__(*channels, op.sides, op",
            "super().__init__(*channels, op.sides[0], op",
            (*_case("pt", WIDE),),
        ),
        Fault(
            "pt: convolutions have no activation",
            "googlenet_pt/layers.py",
            "self.activation = op.activation",
            "self.activation = None",
            (*_case("pt", "convolution-conv1"),),
        ),
        Fault(
            "pt: batch norm has PyTorch's epsilon",
            "googlenet_pt/layers.py",
            "kind(node.out_channels, norm.epsilon, norm.momentum)",
            "kind(node.out_channels, momentum=norm.momentum)",
            (*_case("pt", INFERENCE),),
            trap="norm-epsilon",
        ),
        Fault(
            "pt: batch norm's momentum is Gluon's",
            "googlenet_pt/layers.py",
            "norm.epsilon, norm.momentum)",
            "norm.epsilon, 1 - norm.momentum)",
            (*_case("pt", TRAINING),),
            trap="norm-momentum",
        ),
        Fault(
            "pt: a convolution's activation comes before its batch norm",
            "googlenet_pt/layers.py",
            "        if self.norm is not None:\n"
            "            x = self.norm(x)\n"
            "        return ACTIVATIONS[self.activation](x)\n"
            "\n"
            "\n"
            "class Dense(nn.Linear):",
            "        x = ACTIVATIONS[self.activation](x)\n"
            "        return x if self.norm is None else self.norm(x)\n"
            "\n"
            "\n"
            "class Dense(nn.Linear):",
            (*_case("pt", TRAINING),),
        ),
        Fault(
            "pt: a dense layer's activation comes before its batch norm",
            "googlenet_pt/layers.py",
            "        if self.norm is not None:\n"
            "            x = self.norm(x)\n"
            "        return ACTIVATIONS[self.activation](x)\n"
            "\n"
            "\n"
            "class MaxPool(nn.Module):",
            "        x = ACTIVATIONS[self.activation](x)\n"
            "        return x if self.norm is None else self.norm(x)\n"
            "\n"
            "\n"
            "class MaxPool(nn.Module):",
            (*_case("pt", "batch-norm-of-values-training"),),
        ),
        Fault(
            "pt: Inception concatenates 5x5 before 3x3",
            "googlenet_pt/googlenet.py",
            "                self.branch3x3(self.branch3x3_reduce(x)),\n"
            "                self.branch5x5(self.branch5x5_reduce(x)),\n",
            "                self.branch5x5(self.branch5x5_reduce(x)),\n"
            "                self.branch3x3(self.branch3x3_reduce(x)),\n",
            (*_case("pt", BLOCK),),
            trap="branch-order",
        ),
        Fault(
            "pt: the pool of an Inception block is an average",
            "googlenet_pt/googlenet.py",
            'self.pool = MaxPool(nodes[f"{name}.pool"])',
            "self.pool = nn.AvgPool2d(3, 1, 1)",
            (*_case("pt", BLOCK),),
        ),
        Fault(
            "pt: the heads' pool is always adaptive",
            "googlenet_pt/googlenet.py",
            "x = self.pool(x)  # 4 x 4 x channels",
            "x = nn.functional.adaptive_avg_pool2d(x, 4)",
            (*_case("pt", HEAD),),
        ),
        Fault(
            "pt: the heads' pool is never adaptive",
            "googlenet_pt/googlenet.py",
            "x = self.pool(x)  # 4 x 4 x channels",
            "x = nn.functional.avg_pool2d(x, 5, 3)",
            (*_case("pt", "head-adaptive-on-14x14-inference"),),
            trap="adaptive-pool",
        ),
        Fault(
            "pt: dense layers have no activation",
            "googlenet_pt/layers.py",
            "self.activation = node.op.activation",
            "self.activation = None",
            (*_case("pt", "dense-on-values"),),
        ),
        Fault(
            "pt: a head does not see its mask",
            "googlenet_pt/googlenet.py",
            "return self.fc2(x, mask)",
            "return self.fc2(x)",
            (*_case("pt", HEAD),),
        ),
        Fault(
            "pt: LRN's alpha is not divided by the size",
            "googlenet_pt/layers.py",
            "lrn.size, lrn.alpha, lrn.beta, lrn.k)",
            "lrn.size, lrn.alpha * lrn.size, lrn.beta, lrn.k)",
            (*_case("pt", LRN),),
            trap="lrn-alpha",
        ),
        Fault(
            "pt: LRN has PyTorch's k",
            "googlenet_pt/layers.py",
            "lrn.size, lrn.alpha, lrn.beta, lrn.k)",
            "lrn.size, lrn.alpha, lrn.beta)",
            (*_case("pt", LRN),),
        ),
        Fault(
            "pt: the last average is always that of the whole map",
            "googlenet_pt/layers.py",
            "return F.avg_pool2d(x, op.sides, op.strides, op.symmetric_pads, count_include_pad=op.count_pad)",
            "return F.adaptive_avg_pool2d(x, 1)",
            (*_case("pt", "average-of-7x7-pixels-of-15x8"),),
        ),
        Fault(
            "pt: averages always count the padding",
            "googlenet_pt/layers.py",
            "count_include_pad=op.count_pad",
            "count_include_pad=True",
            (*_case("pt", UNPADDED_AVERAGE),),
        ),
        Fault(
            "pt: averages never count the padding",
            "googlenet_pt/layers.py",
            "count_include_pad=op.count_pad",
            "count_include_pad=False",
            (*_case("pt", PADDED_AVERAGE),),
        ),
        Fault(
            "pt: the padding of averages is lost",
            "googlenet_pt/layers.py",
            "op.strides, op.symmetric_pads, count",
            "op.strides, 0, count",
            (*_case("pt", PADDED_AVERAGE),),
        ),
        Fault(
            "pt: windows of averages are turned on their side",
            "googlenet_pt/layers.py",
            "F.avg_pool2d(x, op.sides, ",
            "F.avg_pool2d(x, op.sides[::-1], ",
            (*_case("pt", TALL_AVERAGE),),
        ),
        Fault(
            "pt: nothing is dropped before the classifier",
            "googlenet_pt/googlenet.py",
            'self.fc(x, masks.get("fc"))',
            "self.fc(x)",
            (*_network("pt"),),
        ),
        Fault(
            "pt: pool4 is like the other pools",
            "googlenet_pt/googlenet.py",
            'nodes["pool4"]',
            'nodes["pool3"]',
            (*_case("pt", "max-pool-pool4"),),
        ),
        Fault(
            "pt: a tangent in the place of the sigmoid",
            "googlenet_pt/layers.py",
            '"sigmoid": torch.sigmoid',
            '"sigmoid": torch.tanh',
            (*_case("pt", "dense-then-sigmoid"),),
        ),
        Fault(
            "pt: the batch norm for the biased variance stores the unbiased one",
            "googlenet_pt/layers.py",
            "self.running_var + m * var)",
            "self.running_var + m * x.var(axes))",
            (*_case("pt", BIASED),),
        ),
        Fault(
            "pt: PyTorch's own batch norm computes where the biased variance is to be stored",
            "googlenet_pt/layers.py",
            "if not norm.unbiased:",
            "if False:",
            (*_case("pt", FROZEN),),
        ),
        Fault(
            "pt: the batch norm for the biased variance: momentum is the old mean's share",
            "googlenet_pt/layers.py",
            "(1 - m) * self.running_mean + m * mean",
            "m * self.running_mean + (1 - m) * mean",
            (*_case("pt", BIASED),),
        ),
        Fault(
            "pt: the batch norm for the biased variance trains in inference too",
            "googlenet_pt/layers.py",
            "        if self.training:\n",
            "        if True:\n",
            (*_case("pt", BIASED_INFERENCE),),
        ),
        Fault(
            "pt: epsilon is added to the deviation, not to the variance",
            "googlenet_pt/layers.py",
            "torch.sqrt(var.reshape(shape) + self.settings.epsilon)",
            "(torch.sqrt(var.reshape(shape)) + self.settings.epsilon)",
            (*_case("pt", BIASED),),
        ),
        Fault(
            "pt: no gradient flows through the batch's statistics",
            "googlenet_pt/layers.py",
            "            mean = x.mean(axes)\n",
            "            mean = x.mean(axes).detach()\n",
            (*_case("pt", BIASED),),
        ),
        Fault(
            "pt: batch norm has PyTorch's momentum",
            "googlenet_pt/layers.py",
            "kind(node.out_channels, norm.epsilon, norm.momentum)",
            "kind(node.out_channels, norm.epsilon)",
            (*_case("pt", TRAINING),),
        ),
        Fault(
            "pt: convolutions have no padding",
            "googlenet_pt/layers.py",
            "op.strides, op.symmetric_pads, bias",
            "op.strides, bias",
            (*_case("pt", CONV),),
        ),
        Fault(
            "pt: convolutions have no stride",
            "googlenet_pt/layers.py",
            "op.sides, op.strides, op.symmetric_pads, bias",
            "op.sides, 1, op.symmetric_pads, bias",
            (*_case("pt", STRIDED),),
        ),
        Fault(
            "pt: a dense layer reads maps as height, width, channels",
            "googlenet_pt/layers.py",
            "torch.flatten(x, 1)  # in",
            "torch.flatten(x.movedim(1, -1), 1)  # in",
            (*_case("pt", MAP),),
        ),
        Fault(
            "pt: nothing is dropped before a convolution",
            "googlenet_pt/layers.py",
            "    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:\n"
            "        if self.dropout is not None:\n"
            "            x = self.dropout(x, mask)\n",
            "    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:\n",
            (*_case("pt", "dropout-of-maps"),),
        ),
        Fault(
            "pt: nothing is dropped before a dense layer",
            "googlenet_pt/layers.py",
            "        x = torch.flatten(x, 1)  # in the order (C, H, W)\n"
            "        if self.dropout is not None:\n"
            "            x = self.dropout(x, mask)\n",
            "        x = torch.flatten(x, 1)  # in the order (C, H, W)\n",
            (*_case("pt", "dropout-of-values"),),
        ),
        Fault(
            "pt: a dense layer drops what it puts out",
            "googlenet_pt/layers.py",
            "        x = torch.flatten(x, 1)  # in the order (C, H, W)\n"
            "        if self.dropout is not None:\n"
            "            x = self.dropout(x, mask)\n"
            "        x = super().forward(x)\n",
            "        x = super().forward(torch.flatten(x, 1))\n"
            "        if self.dropout is not None:\n"
            "            x = self.dropout(x, mask)\n",
            (*_dropout("pt"),),
        ),
        Fault(
            "pt: the global average is a maximum",
            "googlenet_pt/layers.py",
            "x.mean((2, 3))",
            "x.amax((2, 3))",
            (*_case("pt", "average-of-the-whole-map-in-a-sequence"),),
        ),
        Fault(
            "pt: the heads' labels are not smoothed",
            "googlenet_pt/train.py",
            "F.cross_entropy(logits, labels, label_smoothing=smoothing)",
            "F.cross_entropy(logits, labels)",
            (*_loss("pt"),),
        ),
        Fault(
            "pt: the classifier's labels are not smoothed",
            "googlenet_pt/train.py",
            "F.cross_entropy(outputs.logits, labels, label_smoothing=smoothing)",
            "F.cross_entropy(outputs.logits, labels)",
            (*_loss("pt", "without heads"),),
        ),
        Fault(
            "pt: the heads' losses have the classifier's weight",
            "googlenet_pt/train.py",
            "config.aux_weight * F.cross_entropy",
            "F.cross_entropy",
            (*_loss("pt"),),
        ),
        Fault(
            "pt: one head's loss is left out",
            "googlenet_pt/train.py",
            "in outputs.heads.values():",
            "in list(outputs.heads.values())[:1]:",
            (*_loss("pt"),),
        ),
        Fault(
            "pt: the loss is a sum",
            "googlenet_pt/train.py",
            "outputs.logits, labels, label_smoothing=smoothing)",
            'outputs.logits, labels, label_smoothing=smoothing, reduction="sum")',
            (*_loss("pt", "without heads", "0.0"),),
        ),
        Fault(
            "pt: the textbook's pool branch has no ReLU",
            "googlenet_pt/textbook.py",
            "b4 = F.relu(self.p4_2(self.p4_1(x)))",
            "b4 = self.p4_2(self.p4_1(x))",
            (*_block("pt"),),
        ),
        Fault(
            "pt: the textbook's branches are concatenated in another order",
            "googlenet_pt/textbook.py",
            "torch.cat((b1, b2, b3, b4), dim=1)",
            "torch.cat((b1, b2, b4, b3), dim=1)",
            (*_block("pt"),),
        ),
    ],
    [
        # ---------------------------------------------------------------------------------------------- googlenet_mx
        Fault(
            "mx: a leaky ReLU",
            "googlenet_mx/layers.py",
            'F.Activation(x, act_type="relu")',
            "F.LeakyReLU(x, slope=0.01)",
            (*_case("mx", CONV),),
        ),
        Fault(
            "mx: the padding of max pools is lost",
            "googlenet_mx/layers.py",
            ", pad=self.pads, pool_type",
            ", pool_type",
            (*_case("mx", PADDED_POOL),),
        ),
        Fault(
            "mx: max pools always round down",
            "googlenet_mx/layers.py",
            "if op.ceil:",
            "if False:",
            (*_case("mx", CEIL_POOL),),
        ),
        Fault(
            "mx: zeros where a window of a max pool hangs over the edge",
            "googlenet_mx/layers.py",
            'constant_value=float("-inf")',
            "constant_value=0",
            (*_case("mx", CEIL_POOL),),
        ),
        Fault(
            "mx: a max pool rounds up where the windows fit as well",
            "googlenet_mx/layers.py",
            "(stride - 1 for stride in op.strides)",
            "op.strides",
            (*_case("mx", "max-pool-2x2-stride-2-pad-0-ceiling-on-6x7"),),
        ),
        Fault(
            "mx: max pools are averages",
            "googlenet_mx/layers.py",
            'pool_type="max"',
            'pool_type="avg"',
            (*_case("mx", PADDED_POOL),),
        ),
        Fault(
            "mx: windows of max pools are turned on their side",
            "googlenet_mx/layers.py",
            "F.Pooling(x, kernel=op.sides, stride",
            "F.Pooling(x, kernel=op.sides[::-1], stride",
            (*_case("mx", TALL_POOL),),
        ),
        Fault(
            "mx: batch norm has MXNet's epsilon",
            "googlenet_mx/layers.py",
            "epsilon=settings.epsilon, ",
            "",
            (*_case("mx", INFERENCE),),
        ),
        Fault(
            "mx: batch norm has no scale",
            "googlenet_mx/layers.py",
            '"scale": settings.scale',
            '"scale": False',
            (*_case("mx", INFERENCE),),
            trap="norm-gamma",
        ),
        Fault(
            "mx: batch norm stores the unbiased variance only where it is affine",
            "googlenet_mx/layers.py",
            "        if self.settings.unbiased:\n",
            "        if self.settings.shift:\n",
            (*_case("mx", FROZEN),),
        ),
        Fault(
            "mx: batch norm stores the biased variance",
            "googlenet_mx/layers.py",
            "        if self.settings.unbiased:\n",
            "        if False:\n",
            (*_case("mx", TRAINING),),
        ),
        Fault(
            "mx: batch norm always stores the unbiased variance",
            "googlenet_mx/layers.py",
            "        if self.settings.unbiased:\n",
            "        if True:\n",
            (*_case("mx", FROZEN),),
        ),
        Fault(
            "mx: epsilon stays in the running variance",
            "googlenet_mx/layers.py",
            "1 / inverse_std**2 - self.settings.epsilon",
            "1 / inverse_std**2",
            (*_case("mx", TRAINING),),
        ),
        Fault(
            "mx: batch norm's momentum is Gluon's",
            "googlenet_mx/layers.py",
            "(1 - m) * running.data() + m * new",
            "m * running.data() + (1 - m) * new",
            (*_case("mx", TRAINING),),
        ),
        Fault(
            "mx: the unbiased variance counts all channels",
            "googlenet_mx/layers.py",
            "size.astype(mean.dtype) / mean.size",
            "size.astype(mean.dtype)",
            (*_case("mx", TRAINING),),
        ),
        Fault(
            "mx: what dropout keeps is not scaled",
            "googlenet_mx/layers.py",
            "x * mask / (1 - self.rate)",
            "x * mask",
            (*_case("mx", "dropout-of-values"),),
        ),
        Fault(
            "mx: dropout keeps what it should drop",
            "googlenet_mx/layers.py",
            "x * mask / (1 - self.rate)",
            "x * (1 - mask) / (1 - self.rate)",
            (*_case("mx", "dropout-of-maps"),),
        ),
        Fault(
            "mx: dropout drops what it should keep where it draws for itself",
            "googlenet_mx/network.py",
            "ctx=x.ctx) >= rate",
            "ctx=x.ctx) < rate",
            (*_dropout("mx"),),
        ),
        Fault(
            "mx: convolutions always have a ReLU",
            "googlenet_mx/layers.py",
            "self.activation = op.activation",
            'self.activation = "relu"',
            (*_case("mx", "convolution-conv2-without-relu"),),
        ),
        Fault(
            "mx: a convolution's pads down and across are exchanged",
            "googlenet_mx/layers.py",
            "window = op.sides, op.strides, op.symmetric_pads",
            "window = op.sides, op.strides, op.symmetric_pads[::-1]",
            (*_case("mx", WIDE),),
        ),
        Fault(
            "mx: a convolution's strides down and across are exchanged",
            "googlenet_mx/layers.py",
            "window = op.sides, op.strides, op.symmetric_pads",
            "window = op.sides, op.strides[::-1], op.symmetric_pads",
            (*_case("mx", STRIDED_DOWN),),
        ),
        Fault(
            "mx: kernels are square",
            "googlenet_mx/layers.py",
            "window = op.sides, op.strides, op.symmetric_pads",
            "window = op.sides[0], op.strides, op.symmetric_pads",
            (*_case("mx", WIDE),),
        ),
        Fault(
            "mx: convolutions have no activation",
            "googlenet_mx/layers.py",
            "self.activation = op.activation",
            "self.activation = None",
            (*_case("mx", "convolution-conv1"),),
        ),
        Fault(
            "mx: Inception concatenates 5x5 before 3x3",
            "googlenet_mx/googlenet.py",
            "                self.branch3x3(self.branch3x3_reduce(x)),\n"
            "                self.branch5x5(self.branch5x5_reduce(x)),\n",
            "                self.branch5x5(self.branch5x5_reduce(x)),\n"
            "                self.branch3x3(self.branch3x3_reduce(x)),\n",
            (*_case("mx", BLOCK),),
        ),
        Fault(
            "mx: the pool branch of an Inception block has no pool",
            "googlenet_mx/googlenet.py",
            "self.pool_proj(self.pool(x))",
            "self.pool_proj(x)",
            (*_case("mx", BLOCK),),
        ),
        Fault(
            "mx: the heads' pool is always adaptive",
            "googlenet_mx/googlenet.py",
            "x = self.pool(x)  # 4 x 4 x channels",
            "x = F.contrib.AdaptiveAvgPooling2D(x, output_size=4)",
            (*_case("mx", HEAD),),
        ),
        Fault(
            "mx: the heads' pool is never adaptive",
            "googlenet_mx/googlenet.py",
            "x = self.pool(x)  # 4 x 4 x channels",
            'x = F.Pooling(x, kernel=(5, 5), stride=(3, 3), pool_type="avg")',
            (*_case("mx", "head-adaptive-on-14x14-inference"),),
        ),
        Fault(
            "mx: a dense layer reads maps as height, width, channels",
            "googlenet_mx/layers.py",
            "F.flatten(x)  # in",
            "F.flatten(F.transpose(x, axes=(0, 2, 3, 1)))  # in",
            (*_case("mx", MAP),),
        ),
        Fault(
            "mx: a head does not see its mask",
            "googlenet_mx/googlenet.py",
            "return self.fc2(x, mask)",
            "return self.fc2(x)",
            (*_case("mx", HEAD),),
        ),
        Fault(
            "mx: LRN's average does not count its padding",
            "googlenet_mx/layers.py",
            'pad=(lrn.size // 2, 0), pool_type="avg")',
            'pad=(lrn.size // 2, 0), pool_type="avg", count_include_pad=False)',
            (*_case("mx", LRN),),
            trap="pool-divisor",
        ),
        Fault(
            "mx: LRN's alpha is not divided by the size",
            "googlenet_mx/layers.py",
            "lrn.k + lrn.alpha * F",
            "lrn.k + lrn.size * lrn.alpha * F",
            (*_case("mx", LRN),),
        ),
        Fault(
            "mx: the last average is always that of the whole map",
            "googlenet_mx/layers.py",
            "if isinstance(op, spec.AdaptiveAverage) and op.side == 1:",
            "if True:",
            (*_case("mx", "average-of-7x7-pixels-of-15x8"),),
        ),
        Fault(
            "mx: windows of averages overlap",
            "googlenet_mx/layers.py",
            '"stride": op.strides, "pad"',
            '"pad"',
            (*_case("mx", "average-of-7x7-pixels-of-15x8"),),
        ),
        Fault(
            "mx: averages always count the padding",
            "googlenet_mx/layers.py",
            "count_include_pad=op.count_pad",
            "count_include_pad=True",
            (*_case("mx", UNPADDED_AVERAGE),),
        ),
        Fault(
            "mx: averages never count the padding",
            "googlenet_mx/layers.py",
            "count_include_pad=op.count_pad",
            "count_include_pad=False",
            (*_case("mx", PADDED_AVERAGE),),
        ),
        Fault(
            "mx: the padding of averages is lost",
            "googlenet_mx/layers.py",
            '"stride": op.strides, "pad": op.symmetric_pads}',
            '"stride": op.strides}',
            (*_case("mx", PADDED_AVERAGE),),
        ),
        Fault(
            "mx: windows of averages are turned on their side",
            "googlenet_mx/layers.py",
            '"kernel": op.sides, "stride"',
            '"kernel": op.sides[::-1], "stride"',
            (*_case("mx", TALL_AVERAGE),),
        ),
        Fault(
            "mx: pool4 is like the other pools",
            "googlenet_mx/googlenet.py",
            'nodes["pool4"]',
            'nodes["pool3"]',
            (*_case("mx", "max-pool-pool4"),),
        ),
        Fault(
            "mx: nothing is dropped before the classifier",
            "googlenet_mx/googlenet.py",
            'self.fc(x, masks.get("fc"))',
            "self.fc(x)",
            (*_network("mx"),),
        ),
        Fault(
            "mx: a tangent in the place of the sigmoid",
            "googlenet_mx/layers.py",
            "F.sigmoid(x)",
            "F.tanh(x)",
            (*_case("mx", "dense-then-sigmoid"),),
        ),
        Fault(
            "mx: convolutions have no padding",
            "googlenet_mx/layers.py",
            "window = op.sides, op.strides, op.symmetric_pads",
            "window = op.sides, op.strides",
            (*_case("mx", CONV),),
        ),
        Fault(
            "mx: convolutions have no stride",
            "googlenet_mx/layers.py",
            "window = op.sides, op.strides, op.symmetric_pads",
            "window = op.sides, 1, op.symmetric_pads",
            (*_case("mx", STRIDED),),
        ),
        Fault(
            "mx: a convolution's activation comes before its batch norm",
            "googlenet_mx/layers.py",
            "        if self.norm is not None:\n"
            "            x = self.norm(x)\n"
            "        return ACTIVATIONS[self.activation](F, x)\n"
            "\n"
            "\n"
            "class Dense(nn.Dense):",
            "        x = ACTIVATIONS[self.activation](F, x)\n"
            "        return x if self.norm is None else self.norm(x)\n"
            "\n"
            "\n"
            "class Dense(nn.Dense):",
            (*_case("mx", TRAINING),),
        ),
        Fault(
            "mx: a dense layer's activation comes before its batch norm",
            "googlenet_mx/layers.py",
            "        if self.norm is not None:\n"
            "            x = self.norm(x)\n"
            "        return ACTIVATIONS[self.activation](F, x)\n"
            "\n"
            "\n"
            "class MaxPool(HybridBlock):",
            "        x = ACTIVATIONS[self.activation](F, x)\n"
            "        return x if self.norm is None else self.norm(x)\n"
            "\n"
            "\n"
            "class MaxPool(HybridBlock):",
            (*_case("mx", "batch-norm-of-values-training"),),
        ),
        Fault(
            "mx: the global average is a maximum",
            "googlenet_mx/layers.py",
            "F.mean(x, axis=(2, 3))",
            "F.max(x, axis=(2, 3))",
            (*_case("mx", "average-of-the-whole-map-in-a-sequence"),),
        ),
        Fault(
            "mx: nothing is dropped before a convolution",
            "googlenet_mx/layers.py",
            "    def hybrid_forward(self, F, x, mask=None, *, weight, bias=None):\n"
            "        if self.dropout is not None:\n"
            "            x = self.dropout(x, mask)\n",
            "    def hybrid_forward(self, F, x, mask=None, *, weight, bias=None):\n",
            (*_case("mx", "dropout-of-maps"),),
        ),
        Fault(
            "mx: nothing is dropped before a dense layer",
            "googlenet_mx/layers.py",
            "        x = F.flatten(x)  # in the order (C, H, W)\n"
            "        if self.dropout is not None:\n"
            "            x = self.dropout(x, mask)\n",
            "        x = F.flatten(x)  # in the order (C, H, W)\n",
            (*_case("mx", "dropout-of-values"),),
        ),
        Fault(
            "mx: the smoothed share goes to the wrong classes only",
            "googlenet_mx/train.py",
            "config.label_smoothing / config.num_classes",
            "config.label_smoothing / (config.num_classes - 1)",
            (*_loss("mx", "without heads"),),
        ),
        Fault(
            "mx: the labels keep all of their share",
            "googlenet_mx/train.py",
            "(1 - config.label_smoothing) * targets",
            "targets",
            (*_loss("mx", "without heads"),),
        ),
        Fault(
            "mx: the heads' losses have the classifier's weight",
            "googlenet_mx/train.py",
            "config.aux_weight * _cross_entropy",
            "_cross_entropy",
            (*_loss("mx"),),
        ),
        Fault(
            "mx: the loss is a sum",
            "googlenet_mx/train.py",
            "_cross_entropy(outputs.logits, targets).mean()",
            "_cross_entropy(outputs.logits, targets).sum()",
            (*_loss("mx", "without heads", "0.0"),),
        ),
        Fault(
            "mx: the textbook's pool branch reads what is not pooled",
            "googlenet_mx/textbook.py",
            "b4 = self.p4_2(self.p4_1(x))",
            "b4 = self.p4_2(x)",
            (*_block("mx"),),
        ),
    ],
    [
        # --------------------------------------------------------------------------------------------- googlenet_jax
        Fault(
            "jax: the padding of max pools is lost",
            "googlenet_jax/layers.py",
            "edges = [(op.pads[axis][0], beyond(",
            "edges = [(0, beyond(",
            (*_case("jax", PADDED_POOL),),
        ),
        Fault(
            "jax: max pools never reach over the edge",
            "googlenet_jax/layers.py",
            "return max(last + op.sides[axis] - op.pads[axis][0] - size, 0)",
            "return op.pads[axis][1]",
            (*_case("jax", CEIL_POOL),),
        ),
        Fault(
            "jax: zeros outside the image of a max pool",
            "googlenet_jax/layers.py",
            "jax.lax.reduce_window(x, -jnp.inf, ",
            "jax.lax.reduce_window(x, 0.0, ",
            (*_case("jax", PADDED_POOL),),
        ),
        Fault(
            "jax: windows of max pools are turned on their side",
            "googlenet_jax/layers.py",
            "window, strides = (1, *op.sides, 1),",
            "window, strides = (1, *op.sides[::-1], 1),",
            (*_case("jax", TALL_POOL),),
        ),
        Fault(
            "jax: the last maximum takes the gradient of a max pool",
            "googlenet_jax/fast_cpu.py",
            "candidate > value",
            "candidate >= value",
            (*_case("jax", PADDED_POOL),),
        ),
        Fault(
            "jax: a max pool's gradient forgets its padding",
            "googlenet_jax/fast_cpu.py",
            "pad, pad + size, axis=axis)",
            "0, size, axis=axis)",
            (*_case("jax", PADDED_POOL),),
        ),
        Fault(
            "jax: a max pool's gradient takes rows for columns",
            "googlenet_jax/fast_cpu.py",
            "column, op, 1, x.shape[2])",
            "column, op, 1, x.shape[1])",
            (*_case("jax", PADDED_POOL),),
        ),
        Fault(
            "jax: overlapping windows of a max pool do not add up",
            "googlenet_jax/fast_cpu.py",
            "range(first, side, stride)",
            "range(first, first + 1)",
            (*_case("jax", PADDED_POOL),),
        ),
        Fault(
            "jax: a max pool's gradient has the same stride along both axes",
            "googlenet_jax/fast_cpu.py",
            "op.sides[axis], op.strides[axis], op.pads[axis][0], 1 + axis",
            "op.sides[axis], op.strides[0], op.pads[axis][0], 1 + axis",
            (*_case("jax", TALL_POOL),),
        ),
        Fault(
            "jax: a max pool's gradient has windows as high as they are wide",
            "googlenet_jax/fast_cpu.py",
            "for k in range(op.sides[axis]):",
            "for k in range(op.sides[1]):",
            (*_case("jax", TALL_POOL),),
        ),
        Fault(
            "jax: a max pool's gradient has the same padding along both axes",
            "googlenet_jax/fast_cpu.py",
            "outside[1 + axis] = (op.pads[axis][0], ",
            "outside[1 + axis] = (op.pads[0][0], ",
            (*_case("jax", TALL_POOL),),
        ),
        Fault(
            "jax: a strided 1x1 convolution loses its stride",
            "googlenet_jax/fast_cpu.py",
            "if strides == (1, 1) and (height, width) == (1, 1) and",
            "if (height, width) == (1, 1) and",
            (*_convolution((1, 1), (2, 2), ((0, 0), (0, 0)), (7, 9), True),),
        ),
        Fault(
            "jax: a 1x1 convolution loses its padding",
            "googlenet_jax/fast_cpu.py",
            " and not np.any(padding):",
            ":",
            (*_convolution((1, 1), (1, 1), ((1, 1), (1, 1)), (3, 4), True),),
        ),
        Fault(
            "jax: a 1x7 kernel is taken for a 1x1 one",
            "googlenet_jax/fast_cpu.py",
            "(height, width) == (1, 1)",
            "height == 1",
            (*_convolution((1, 7), (1, 1), ((0, 0), (0, 0)), (5, 9), True),),
        ),
        Fault(
            "jax: a strided convolution has the same stride along both axes",
            "googlenet_jax/fast_cpu.py",
            "j : j + across * strides[1] + 1 : strides[1]]",
            "j : j + across * strides[0] + 1 : strides[0]]",
            (*_convolution((3, 5), (2, 1), ((1, 0), (2, 1)), (2, 4), True),),
        ),
        Fault(
            "jax: a convolution has as many windows as the map has rows",
            "googlenet_jax/fast_cpu.py",
            "down, across = (padded.shape[1] - height) // strides[0]",
            "down, across = (x.shape[1] - 1) // strides[0]",
            (*_convolution((5, 5), (1, 1), ((1, 1), (1, 1)), (4, 7), False),),
        ),
        Fault(
            "jax: a convolution takes its windows by columns",
            "googlenet_jax/fast_cpu.py",
            "            for i in range(height)\n            for j in range(width)\n",
            "            for j in range(width)\n            for i in range(height)\n",
            (*_convolution((5, 3), (1, 1), ((2, 2), (1, 1)), (7, 2), False),),
        ),
        Fault(
            "jax: batch norm stores the biased variance",
            "googlenet_jax/layers.py",
            "count / (count - 1) if self.settings.unbiased else 1",
            "1",
            (*_case("jax", TRAINING),),
            trap="norm-biased",
        ),
        Fault(
            "jax: batch norm always stores the unbiased variance",
            "googlenet_jax/layers.py",
            "count / (count - 1) if self.settings.unbiased else 1",
            "count / (count - 1)",
            (*_case("jax", FROZEN),),
        ),
        Fault(
            "jax: batch norm's momentum is Flax's",
            "googlenet_jax/layers.py",
            "(1 - m) * self.mean[...] + m * mean",
            "m * self.mean[...] + (1 - m) * mean",
            (*_case("jax", TRAINING),),
        ),
        Fault(
            "jax: epsilon is added to the deviation, not to the variance",
            "googlenet_jax/layers.py",
            "1 / jnp.sqrt(var + self.settings.epsilon)",
            "1 / (jnp.sqrt(var) + self.settings.epsilon)",
            (*_case("jax", INFERENCE),),
        ),
        Fault(
            "jax: batch norm's epsilon is Flax's",
            "googlenet_jax/layers.py",
            "jnp.sqrt(var + self.settings.epsilon)",
            "jnp.sqrt(var + 1e-5)",
            (*_case("jax", INFERENCE),),
        ),
        Fault(
            "jax: batch norm always takes the batch's statistics",
            "googlenet_jax/layers.py",
            "if self.use_running_average:",
            "if False:",
            (*_case("jax", INFERENCE),),
        ),
        Fault(
            "jax: batch norm never takes the batch's statistics",
            "googlenet_jax/layers.py",
            "if self.use_running_average:",
            "if True:",
            (*_case("jax", TRAINING),),
        ),
        Fault(
            "jax: batch norm has no shift",
            "googlenet_jax/layers.py",
            "            x = x + self.bias[...]\n",
            "            pass\n",
            (*_case("jax", INFERENCE),),
        ),
        Fault(
            "jax: batch norm of maps has statistics of each pixel",
            "googlenet_jax/layers.py",
            "x.size // x.shape[-1], tuple(range(x.ndim - 1))",
            "x.size // x.shape[-1], (0,)",
            (*_case("jax", TRAINING),),
        ),
        Fault(
            "jax: a convolution's activation comes before its batch norm",
            "googlenet_jax/layers.py",
            "        if self.norm is not None:\n"
            "            x = self.norm(x)\n"
            "        return ACTIVATIONS[self.activation](x)\n"
            "\n"
            "\n"
            "class Dense(nnx.Linear):",
            "        x = ACTIVATIONS[self.activation](x)\n"
            "        return x if self.norm is None else self.norm(x)\n"
            "\n"
            "\n"
            "class Dense(nnx.Linear):",
            (*_case("jax", TRAINING),),
        ),
        Fault(
            "jax: a dense layer's activation comes before its batch norm",
            "googlenet_jax/layers.py",
            "        if self.norm is not None:\n"
            "            x = self.norm(x)\n"
            "        return ACTIVATIONS[self.activation](x)\n"
            "\n"
            "\n"
            "class MaxPool(nnx.Module):",
            "        x = ACTIVATIONS[self.activation](x)\n"
            "        return x if self.norm is None else self.norm(x)\n"
            "\n"
            "\n"
            "class MaxPool(nnx.Module):",
            (*_case("jax", "batch-norm-of-values-training"),),
        ),
        Fault(
            "jax: what dropout keeps is not scaled",
            "googlenet_jax/layers.py",
            "x * mask / (1 - self.rate)",
            "x * mask",
            (*_case("jax", "dropout-of-values"),),
        ),
        Fault(
            "jax: dropout draws in inference too",
            "googlenet_jax/layers.py",
            "return super().__call__(x) if mask is None else",
            "return super().__call__(x, deterministic=False) if mask is None else",
            (*_case("jax", "dropout-of-values-inference"),),
        ),
        Fault(
            "jax: the padding of strided layers is SAME",
            "googlenet_jax/layers.py",
            "padding=op.pads,",
            'padding="SAME" if max(op.strides) > 1 else op.pads,',
            (*_case("jax", "convolution-conv1"),),
            trap="same-padding",
        ),
        Fault(
            "jax: convolutions always have a ReLU",
            "googlenet_jax/layers.py",
            "self.activation = op.activation",
            'self.activation = "relu"',
            (*_case("jax", "convolution-conv2-without-relu"),),
        ),
        Fault(
            "jax: a convolution's pads down and across are exchanged",
            "googlenet_jax/layers.py",
            "padding=op.pads,",
            "padding=op.pads[::-1],",
            (*_case("jax", WIDE),),
        ),
        Fault(
            "jax: a convolution's strides down and across are exchanged",
            "googlenet_jax/layers.py",
            "strides=op.strides,",
            "strides=op.strides[::-1],",
            (*_case("jax", STRIDED_DOWN),),
        ),
        Fault(
            "jax: a leaky ReLU",
            "googlenet_jax/layers.py",
            '"relu": nnx.relu',
            '"relu": nnx.leaky_relu',
            (*_case("jax", "convolution-conv1"),),
        ),
        Fault(
            "jax: a ReLU has a gradient at 0",
            "googlenet_jax/layers.py",
            '"relu": nnx.relu',
            '"relu": lambda x: jnp.where(x >= 0, x, 0)',
            (*_case("jax", ZERO),),
        ),
        Fault(
            "jax: 1x1 convolutions side by side have no biases",
            "googlenet_jax/fast_cpu.py",
            "y if conv.bias is None else y + conv.bias.astype(y.dtype)",
            "y",
            (*_case("jax", BLOCK),),
        ),
        Fault(
            "jax: 1x1 convolutions side by side have no activations",
            "googlenet_jax/fast_cpu.py",
            "[conv.activate(y) for conv, y in zip(convs, biased, strict=True)]",
            "biased",
            (*_case("jax", BLOCK),),
        ),
        Fault(
            "jax: 1x1 convolutions side by side are cut at their widths, not at the sums of them",
            "googlenet_jax/fast_cpu.py",
            "np.cumsum([conv.out_features for conv in convs])[:-1]",
            "np.array([conv.out_features for conv in convs])[:-1]",
            (*_case("jax", BLOCK),),
        ),
        Fault(
            "jax: 1x1 convolutions side by side are exchanged",
            "googlenet_jax/fast_cpu.py",
            "y, reduced3, reduced5 = side_by_side(x, self.branch1x1, self.branch3x3_reduce, self.branch5x5_reduce)",
            "reduced3, y, reduced5 = side_by_side(x, self.branch3x3_reduce, self.branch1x1, self.branch1x1)",
            (*_case("jax", BLOCK),),
        ),
        Fault(
            "jax: Inception concatenates 5x5 before 3x3",
            "googlenet_jax/fast_cpu.py",
            "[y, self.branch3x3(reduced3), self.branch5x5(reduced5), pooled]",
            "[y, self.branch5x5(reduced5), self.branch3x3(reduced3), pooled]",
            (*_case("jax", BLOCK),),
        ),
        Fault(
            "jax: for a GPU, Inception concatenates 5x5 before 3x3",
            "googlenet_jax/googlenet.py",
            "                self.branch3x3(self.branch3x3_reduce(x)),\n"
            "                self.branch5x5(self.branch5x5_reduce(x)),\n",
            "                self.branch5x5(self.branch5x5_reduce(x)),\n"
            "                self.branch3x3(self.branch3x3_reduce(x)),\n",
            (f"{FILE}test_what_jax_leaves_to_xla_on_a_gpu_is_the_referees_too[jax]",),
        ),
        Fault(
            "jax: the pool branch of an Inception block has no pool",
            "googlenet_jax/fast_cpu.py",
            "self.pool_proj(self.pool(x))",
            "self.pool_proj(x)",
            (*_case("jax", BLOCK),),
        ),
        Fault(
            "jax: for a GPU, the pool branch of an Inception block has no pool",
            "googlenet_jax/googlenet.py",
            "self.pool_proj(self.pool(x))",
            "self.pool_proj(x)",
            (f"{FILE}test_what_jax_leaves_to_xla_on_a_gpu_is_the_referees_too[jax]",),
        ),
        Fault(
            "jax: an adaptive pool takes rows for columns",
            "googlenet_jax/layers.py",
            '"ih,jw,nhwc->nijc"',
            '"ih,jw,nhwc->njic"',
            (*_case("jax", ADAPTIVE),),
        ),
        Fault(
            "jax: the heads' pool is always adaptive",
            "googlenet_jax/googlenet.py",
            "x = self.pool(x)  # 4 x 4 x channels",
            "from googlenet_jax.layers import adaptive_average_pool\n\n        x = adaptive_average_pool(x, 4)",
            (*_case("jax", HEAD),),
        ),
        Fault(
            "jax: the heads' pool has padding SAME",
            "googlenet_jax/googlenet.py",
            "x = self.pool(x)  # 4 x 4 x channels",
            'x = nnx.avg_pool(x, (5, 5), (3, 3), "SAME")[:, :4, :4]',
            (*_case("jax", HEAD),),
        ),
        Fault(
            "jax: dense layers have no activation",
            "googlenet_jax/layers.py",
            "self.activation = node.op.activation",
            "self.activation = None",
            (*_case("jax", "dense-on-values"),),
        ),
        Fault(
            "jax: LRN's alpha is not divided by the size",
            "googlenet_jax/layers.py",
            "lrn.alpha / lrn.size * total",
            "lrn.alpha * total",
            (*_case("jax", LRN),),
        ),
        Fault(
            "jax: LRN sums over the channel and those before it",
            "googlenet_jax/layers.py",
            "(0, 0), (reach, reach)))",
            "(0, 0), (2 * reach, 0)))",
            (*_case("jax", LRN),),
        ),
        Fault(
            "jax: LRN's power has no minus",
            "googlenet_jax/layers.py",
            "** -lrn.beta",
            "** lrn.beta",
            (*_case("jax", LRN),),
        ),
        Fault(
            "jax: the last average is always that of the whole map",
            "googlenet_jax/layers.py",
            "return nnx.avg_pool(x, op.sides, op.strides, op.pads, count_include_pad=op.count_pad)",
            "return x.mean((1, 2), keepdims=True)",
            (*_case("jax", "average-of-7x7-pixels-of-15x8"),),
        ),
        Fault(
            "jax: averages always count the padding",
            "googlenet_jax/layers.py",
            "count_include_pad=op.count_pad",
            "count_include_pad=True",
            (*_case("jax", UNPADDED_AVERAGE),),
        ),
        Fault(
            "jax: averages never count the padding",
            "googlenet_jax/layers.py",
            "count_include_pad=op.count_pad",
            "count_include_pad=False",
            (*_case("jax", PADDED_AVERAGE),),
        ),
        Fault(
            "jax: the padding of averages is lost",
            "googlenet_jax/layers.py",
            "op.strides, op.pads, count",
            'op.strides, "VALID", count',
            (*_case("jax", PADDED_AVERAGE),),
        ),
        Fault(
            "jax: windows of averages are turned on their side",
            "googlenet_jax/layers.py",
            "nnx.avg_pool(x, op.sides, ",
            "nnx.avg_pool(x, op.sides[::-1], ",
            (*_case("jax", TALL_AVERAGE),),
        ),
        Fault(
            "jax: pool4 is like the other pools",
            "googlenet_jax/googlenet.py",
            'nodes["pool4"]',
            'nodes["pool3"]',
            (*_case("jax", "max-pool-pool4"),),
        ),
        Fault(
            "jax: nothing is dropped before the classifier",
            "googlenet_jax/googlenet.py",
            'self.fc(x, masks.get("fc"))',
            "self.fc(x)",
            (*_network("jax"),),
        ),
        Fault(
            "jax: a tangent in the place of the sigmoid",
            "googlenet_jax/layers.py",
            '"sigmoid": nnx.sigmoid',
            '"sigmoid": nnx.tanh',
            (*_case("jax", "dense-then-sigmoid"),),
        ),
        Fault(
            "jax: a dense layer reads maps as height, width, channels",
            "googlenet_jax/layers.py",
            "x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)",
            "x = x.reshape(len(x), -1)",
            (*_case("jax", MAP),),
            trap="flatten-order",
        ),
        Fault(
            "jax: convolutions have no stride",
            "googlenet_jax/layers.py",
            "            strides=op.strides,\n",
            "",
            (*_case("jax", STRIDED),),
        ),
        Fault(
            "jax: convolutions have padding VALID",
            "googlenet_jax/layers.py",
            "padding=op.pads,",
            'padding="VALID",',
            (*_case("jax", CONV),),
        ),
        Fault(
            "jax: the global average is over the channels",
            "googlenet_jax/layers.py",
            "return x.mean((1, 2))",
            "return x.mean((2, 3))",
            (*_case("jax", "average-of-the-whole-map-in-a-sequence"),),
        ),
        Fault(
            "jax: nothing is dropped before a convolution",
            "googlenet_jax/layers.py",
            "    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:\n"
            "        if self.dropout is not None:\n"
            "            x = self.dropout(x, mask)\n",
            "    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:\n",
            (*_case("jax", "dropout-of-maps"),),
        ),
        Fault(
            "jax: nothing is dropped before a dense layer",
            "googlenet_jax/layers.py",
            "            x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # in the order (C, H, W)\n"
            "        if self.dropout is not None:\n"
            "            x = self.dropout(x, mask)\n",
            "            x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # in the order (C, H, W)\n",
            (*_case("jax", "dropout-of-values"),),
        ),
        Fault(
            "jax: the masks of maps stay channels first",
            "googlenet_jax/train.py",
            "mask.transpose(0, 2, 3, 1) if mask.ndim == 4 else mask",
            "mask.reshape(len(mask), *mask.shape[2:], -1) if mask.ndim == 4 else mask",
            (*_case("jax", "dropout-of-maps"),),
        ),
        Fault(
            "jax: labels are not smoothed",
            "googlenet_jax/train.py",
            "    targets = optax.smooth_labels(targets, config.label_smoothing)\n",
            "",
            (*_loss("jax", "without heads"),),
        ),
        Fault(
            "jax: the heads' losses have the classifier's weight",
            "googlenet_jax/train.py",
            "config.aux_weight * optax",
            "optax",
            (*_loss("jax"),),
        ),
        Fault(
            "jax: the loss is a sum",
            "googlenet_jax/train.py",
            "optax.softmax_cross_entropy(outputs.logits, targets).mean()",
            "optax.softmax_cross_entropy(outputs.logits, targets).sum()",
            (*_loss("jax", "without heads", "0.0"),),
        ),
        Fault(
            "jax: the textbook's branches are concatenated in another order",
            "googlenet_jax/textbook.py",
            "jnp.concatenate((b1, b2, b3, b4), axis=-1)",
            "jnp.concatenate((b1, b3, b2, b4), axis=-1)",
            (*_block("jax"),),
        ),
        Fault(
            "jax: the 3x3 branch of the textbook is padded on one side",
            "googlenet_jax/textbook.py",
            "self.p2_2 = conv(c2[0], c2[1], (3, 3), padding=1)",
            "self.p2_2 = conv(c2[0], c2[1], (3, 3), padding=((2, 0), (2, 0)))",
            (*_block("jax"),),
        ),
    ],
)
FAULTS = PT + MX + JAX
