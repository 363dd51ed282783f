"""Faults in the formats' readers and writers, the tables of names, conversions and inspections."""

from __future__ import annotations

from teeth.fault import Fault

_CK, _NAMES, _CONVERT, _INSPECT = (
    "harness/weights/checkpoint.py",
    "harness/weights/names.py",
    "harness/weights/convert.py",
    "harness/weights/inspection.py",
)
_GLUON, _FLAX, _PYTORCH, _ONNX = (f"harness/weights/formats/{n}.py" for n in ("gluon", "flax", "pytorch", "onnx_file"))
_FORMATS, _CANONICAL, _JUDGES = (
    "harness/weights/formats/__init__.py",
    "harness/weights/formats/canonical.py",
    "harness/weights/onnx_run.py",
)
_PT, _MX, _JAX = (f"googlenet_{b}/files.py" for b in ("pt", "mx", "jax"))
_ck, _names, _convert, _formats, _onnx, _params = (
    f"tests/test_{n}.py" for n in ("checkpoint", "names", "convert", "formats", "onnx", "params")
)
_bits = f"{_convert}::test_a_written_file_is_read_bit_for_bit"
_runs = f"{_convert}::test_the_framework_itself_runs_a_file_as_the_referee_does"
_ort = f"{_onnx}::test_onnx_runtime_agrees_with_the_referee"
_evaluator = f"{_onnx}::test_the_reference_evaluator_agrees_with_the_referee"
_torch_book = f"{_names}::test_a_notebook_s_sequence_in_torch_computes_what_the_referee_does"
_gluon_book = f"{_names}::test_a_notebook_s_sequence_in_gluon_computes_what_the_referee_does"
_native = f"{_names}::test_each_framework_has_the_names_of_its_scheme"
_literal = f"{_names}::test_each_scheme_has_the_names_that_were_published"
_vision = f"{_names}::test_torchvision_s_state_dicts_are_recognized"
_recognized = f"{_names}::test_arrays_are_recognized_as_every_preset_that_has_them"

FAULTS = [
    # ------------------------------------------------------------------------------------------------ checkpoints
    Fault(
        "checkpoint: the hash is not checked",
        _CK,
        "if (expected := _digest(arrays, texts)) != found:",
        "if (expected := _digest(arrays, texts)) != found and found is None:",
        (f"{_ck}::test_every_flipped_bit_of_a_tensor_is_noticed",),
    ),
    Fault(
        "checkpoint: the hash does not cover the names",
        _CK,
        'digest.update(f"{name} {x.dtype.str} {x.shape}\\n".encode())',
        'digest.update(f"{x.dtype.str} {x.shape}\\n".encode())',
        (f"{_ck}::test_the_file_is_what_the_description_says", f"{_ck}::test_files_written_before_stay_readable"),
    ),
    Fault(
        "checkpoint: the hash depends on the order of the arrays",
        _CK,
        "for name in sorted(arrays):",
        "for name in arrays:",
        (f"{_ck}::test_equal_content_makes_equal_bytes",),
    ),
    Fault(
        "checkpoint: the order of the metadata is left to chance",
        _CK,
        'dict(sorted(header["__metadata__"].items()))',
        'dict(header["__metadata__"])',
        (f"{_ck}::test_equal_content_makes_equal_bytes",),
    ),
    Fault(
        "checkpoint: arrays are stored in the byte order of memory",
        _CK,
        'return np.asarray(x, x.dtype.newbyteorder("<"), order="C")',
        'return np.asarray(x, order="C")',
        (f"{_ck}::test_how_memory_holds_an_array_does_not_matter[big-endian]",),
    ),
    Fault(
        "checkpoint: a configuration that no preset makes is stored as the preset",
        _CK,
        "if own is None or preset(**table) != config:",
        "if own is None:",
        (f"{_ck}::test_content_that_could_not_be_read_is_not_written",),
    ),
    Fault(
        "checkpoint: label smoothing is not stored",
        _CK,
        '    table["label_smoothing"] = config.label_smoothing\n',
        "",
        (f"{_ck}::test_the_configuration_comes_back_from_its_text",),
    ),
    Fault(
        "checkpoint: arrays come in the order of the file",
        _CK,
        "Checkpoint({name: params[name] for name in param_shapes(config)}, config, metadata, state)",
        "Checkpoint(params, config, metadata, state)",
        (f"{_ck}::test_a_network_comes_back_as_it_was",),
    ),
    Fault(
        "checkpoint: a format of later days is read as ours",
        _CK,
        'if texts.get("format") != FORMAT:',
        'if not str(texts.get("format")).startswith("googlenet"):',
        (f"{_ck}::test_wrong_content_is_refused_even_where_its_hash_is_right",),
    ),
    Fault(
        "checkpoint: a file is written in place",
        "harness/atomic.py",
        'partial = path.with_name(path.name + ".partial")',
        "partial = path",
        (f"{_ck}::test_a_failure_leaves_the_old_file_and_nothing_beside_it",),
    ),
    Fault(
        "checkpoint: a file is renamed before it is on the disk",
        "harness/atomic.py",
        "            os.fsync(file.fileno())\n        partial",
        "        partial",
        (f"{_ck}::test_a_failure_leaves_the_old_file_and_nothing_beside_it",),
    ),
    Fault(
        "checkpoint: Ctrl-C leaves half a file behind",
        "harness/atomic.py",
        "except BaseException as error:",
        "except OSError as error:",
        (f"{_ck}::test_a_failure_leaves_the_old_file_and_nothing_beside_it",),
    ),
    # ------------------------------------------------------------------------------------------------------ names
    Fault(
        "names: Flax's mean and variance are exchanged",
        _NAMES,
        '"norm.running_mean", "norm.mean",   "bn.running_mean"),\n'
        '    "norm.running_var":  ("norm.running_var",  "norm.running_var",  "norm.var",    "bn.running_var"),',
        '"norm.running_mean", "norm.var",    "bn.running_mean"),\n'
        '    "norm.running_var":  ("norm.running_var",  "norm.running_var",  "norm.mean",   "bn.running_var"),',
        (f"{_literal}[nnx]", _native),
    ),
    Fault(
        "names: Gluon's scale and shift are exchanged",
        _NAMES,
        '"norm.weight",       "norm.gamma",        "norm.scale",  "bn.weight"),\n'
        '    "norm.bias":         ("norm.bias",         "norm.beta",',
        '"norm.weight",       "norm.beta",         "norm.scale",  "bn.weight"),\n'
        '    "norm.bias":         ("norm.bias",         "norm.gamma",',
        (f"{_literal}[gluon]", _native),
    ),
    Fault(
        "names: torchvision's mean and variance are exchanged",
        _NAMES,
        '"norm.mean",   "bn.running_mean"),\n'
        '    "norm.running_var":  ("norm.running_var",  "norm.running_var",  "norm.var",    "bn.running_var"),',
        '"norm.mean",   "bn.running_var"),\n'
        '    "norm.running_var":  ("norm.running_var",  "norm.running_var",  "norm.var",    "bn.running_mean"),',
        (f"{_literal}[torchvision]", f"{_names}::test_the_referee_computes_torchvision_s_logits"),
    ),
    Fault(
        "names: torchvision's classifiers of the heads are exchanged",
        _NAMES,
        '    "aux1.fc2":     ("aux1.fc2",   "",           "",           "",           "",              "loss1/classifier"),\n'
        '    "aux2.conv":    ("aux2.conv",  "",           "",           "",           "",              "loss2/conv"),\n'
        '    "aux2.fc1":     ("aux2.fc1",   "",           "",           "",           "",              "loss2/fc"),\n'
        '    "aux2.fc2":     ("aux2.fc2",   "",           "",           "",           "",              "loss2/classifier"),\n',
        '    "aux1.fc2":     ("aux2.fc2",   "",           "",           "",           "",              "loss1/classifier"),\n'
        '    "aux2.conv":    ("aux2.conv",  "",           "",           "",           "",              "loss2/conv"),\n'
        '    "aux2.fc1":     ("aux2.fc1",   "",           "",           "",           "",              "loss2/fc"),\n'
        '    "aux2.fc2":     ("aux1.fc2",   "",           "",           "",           "",              "loss2/classifier"),\n',
        (f"{_literal}[torchvision]", f"{_names}::test_the_referee_computes_torchvision_s_logits"),
    ),
    Fault(
        "names: VGG's fourth and fifth blocks are exchanged in Gluon's files",
        _NAMES,
        '    "conv4_2":     ("3.2",     "3.1"),\n    "conv5_1":     ("4.0",     "4.0"),',
        '    "conv4_2":     ("3.2",     "4.0"),\n    "conv5_1":     ("4.0",     "3.1"),',
        (f"{_gluon_book}[vgg11]",),
    ),
    Fault(
        "names: NiN's 1x1 convolutions are exchanged in PyTorch's files",
        _NAMES,
        '    "conv2_mlp1":  ("2.2",     "2.1"),\n    "conv2_mlp2":  ("2.4",     "2.2"),',
        '    "conv2_mlp1":  ("2.4",     "2.1"),\n    "conv2_mlp2":  ("2.2",     "2.2"),',
        (f"{_torch_book}[nin]",),
    ),
    Fault(
        "names: the 5x5 branch and its reduction stand in the wrong order in a notebook's files",
        _NAMES,
        '("branch3.0", "p3_1",    "p3_1",       "p3_1",       "branch3_1",     "5x5_reduce"),',
        '("branch3.0", "p3_2",    "p3_1",       "p3_1",       "branch3_1",     "5x5_reduce"),',
        (f"{_literal}[d2l-sequential]",),
    ),
    Fault(
        "names: kernels of JAX have columns before rows",
        _NAMES,
        '_JAX = {1: "O", 2: "IO", 4: "HWIO"}',
        '_JAX = {1: "O", 2: "IO", 4: "WHIO"}',
        (f"{_names}::test_a_scheme_of_jax_has_the_layouts_of_jax",),
    ),
    Fault(
        "names: layouts are turned the other way round",
        _NAMES,
        "return tuple(source[count].index(side) for side in target[count])",
        "return tuple(target[count].index(side) for side in source[count])",
        (f"{_names}::test_a_scheme_of_jax_has_the_layouts_of_jax",),
    ),
    Fault(
        "names: a shift that is not learned is 1",
        _NAMES,
        '_FIXED = {"norm.weight": 1, "norm.bias": 0}',
        '_FIXED = {"norm.weight": 1, "norm.bias": 1}',
        (f"{_names}::test_gluon_stores_a_scale_and_a_shift_that_are_not_learned",),
    ),
    Fault(
        "names: a learned scale is taken for one that is not",
        _NAMES,
        "elif name in fixed and not (x == (value := fixed[name][1])).all():",
        "elif name in fixed and not (x == (value := fixed[name][1])).any():",
        (f"{_names}::test_gluon_stores_a_scale_and_a_shift_that_are_not_learned",),
    ),
    Fault(
        "names: the first network that fits is the only one",
        _NAMES,
        "return scheme, [candidate.config for candidate in wanted if candidate.scheme is scheme]",
        "return scheme, [wanted[0].config]",
        (f"{_recognized}[canonical-d2l-False]",),
    ),
    Fault(
        "names: whole numbers pass for parameters",
        _NAMES,
        "if x.dtype.name not in _DTYPES:",
        'if x.dtype.kind not in "fi":',
        (f"{_names}::test_arrays_of_no_network_are_refused_with_the_nearest_and_the_differences",),
    ),
    Fault(
        "names: arrays too many are left out without a word",
        _NAMES,
        "unexpected = len(self.arrays) - sum(name in self.arrays for name in self.known)",
        "unexpected = 0 * len(self.arrays)",
        (f"{_names}::test_arrays_of_no_network_are_refused_with_the_nearest_and_the_differences",),
    ),
    Fault(
        "names: torchvision's counters of batches are unexpected",
        _NAMES,
        '_PLAIN, _CANONICAL, "bn.num_batches_tracked"),',
        "_PLAIN, _CANONICAL),",
        (_vision,),
    ),
    Fault(
        "names: the number of classes is the preset's, whatever the file has",
        _NAMES,
        "        num_classes=side(last, None, last.in_channels),\n",
        "",
        (f"{_vision}[recorded-settings2]", _recognized),
    ),
    # ------------------------------------------------------------------------------------------- MXNet's files
    Fault(
        "gluon: float64 and float16 have each other's number",
        _GLUON,
        '_DTYPES = ("float32", "float64", "float16",',
        '_DTYPES = ("float32", "float16", "float64",',
        (f"{_formats}::test_arrays_of_every_kind_come_back_from_mxnet",),
    ),
    Fault(
        "gluon: auxiliary arrays of a symbol keep their prefix",
        _GLUON,
        'name.removeprefix("arg:").removeprefix("aux:")',
        'name.removeprefix("arg:")',
        (f"{_formats}::test_variants_of_a_params_file_are_read",),
    ),
    Fault(
        "gluon: two arrays of a name are read as one",
        _GLUON,
        "if len(names) != len(arrays) or len(set(names)) < len(names):",
        "if len(names) != len(arrays):",
        (f"{_formats}::test_two_arrays_of_a_name_in_a_params_file_are_refused",),
    ),
    Fault(
        "gluon: a file holds no texts",
        _GLUON,
        "write_atomically(path, *parts, json.dumps(texts).encode())",
        "write_atomically(path, *parts)",
        (f"{_bits}[gluon-lenet-bn-frozen]",),
    ),
    Fault(
        "mxnet: a symbol's running statistics are parameters",
        _FORMATS,
        "f\"{'aux' if is_statistic(name) else 'arg'}:{name}\"",
        'f"arg:{name}"',
        (f"{_formats}::test_mxnet_loads_the_symbol_that_we_write",),
    ),
    Fault(
        "mxnet: a symbol's graph is not held against its parameters",
        _FORMATS,
        "not in (None, _sha256(path)):",
        "is not None and len(expected) != 64:",
        (f"{_formats}::test_a_symbol_is_refused_unless_it_stands_beside_its_own_parameters",),
    ),
    Fault(
        "mxnet: a symbol has the second head's output before the first's",
        _MX,
        "[logits, *heads.values()]",
        "[logits, *reversed(heads.values())]",
        (f"{_runs}[torchvision-mxnet]",),
    ),
    Fault(
        "mxnet: a symbol's shift that is not learned is 1",
        _MX,
        'parameters[f"{norm}.beta"]._var = mx.sym.zeros_like(mean)',
        'parameters[f"{norm}.beta"]._var = mx.sym.ones_like(mean)',
        (f"{_runs}[lenet-bn-frozen-mxnet]",),
    ),
    # --------------------------------------------------------------------------------------------- JAX's files
    Fault(
        "flax: arrays are stored as memory holds them",
        _FLAX,
        "np.ascontiguousarray(tree).tobytes())",
        'tree.tobytes(order="A"))',
        (f"{_bits}[flax-lenet-bn-frozen]",),
    ),
    Fault(
        "flax: bfloat16 is read with half its exponent",
        _FLAX,
        '.astype("<u4") << 16',
        '.astype("<u4") << 15',
        (f"{_formats}::test_arrays_of_every_kind_come_back_from_flax_and_orbax",),
    ),
    Fault(
        "flax: of a name twice the last counts",
        _FLAX,
        "if len(tree) < len(pairs) or not all(isinstance(key, str) for key in tree):",
        "if not all(isinstance(key, str) for key in tree):",
        (f"{_formats}::test_a_damaged_msgpack_file_is_refused",),
    ),
    Fault(
        "flax: what stands behind the end is left alone",
        _FLAX,
        "if reader.tell() != size:",
        "if reader.tell() > size:",
        (f"{_formats}::test_a_damaged_msgpack_file_is_refused",),
    ),
    Fault(
        "orbax: bfloat16 stays what NumPy has not",
        _JAX,
        'return x.astype(np.float32) if x.dtype.name == "bfloat16" else x',
        "return x",
        (f"{_formats}::test_arrays_of_every_kind_come_back_from_flax_and_orbax",),
    ),
    Fault(
        "orbax: a small folder may stand for any amount of zeros",
        _JAX,
        "> 4 * _size(path):",
        "> 2**62:",
        (f"{_formats}::test_an_orbax_checkpoint_of_anything_but_arrays_is_refused",),
    ),
    # ----------------------------------------------------------------------------------------- PyTorch's files
    Fault(
        "pytorch: the counters of batches are missing",
        _PT,
        "if layer.norm and layer.norm.unbiased:",
        "if layer.norm and not layer.norm.unbiased:",
        (f"{_formats}::test_pytorch_loads_what_we_write",),
    ),
    Fault(
        "pytorch: bfloat16 is read as float16",
        _PT,
        "        x = x.float()  # exact",
        "        x = x.half()  # exact",
        (f"{_formats}::test_tensors_of_every_kind_are_read",),
    ),
    Fault(
        "pytorch: a file may run a program",
        _PT,
        'state = torch.load(path, map_location="cpu", weights_only=True)',
        'state = torch.load(path, map_location="cpu", weights_only=False)',
        (f"{_formats}::test_no_code_of_ours_loads_a_pickle", f"{_formats}::test_nothing_in_an_archive_is_executed"),
    ),
    Fault(
        "pytorch: a state dict under a key is not found where PyTorch runs it",
        _PT,
        'model.load_state_dict(_state_dict(torch.load(path, map_location="cpu", weights_only=True)))',
        'model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))',
        (f"{_formats}::test_we_read_what_pytorch_saves",),
    ),
    Fault(
        "pytorch: an archive's checksums are not looked at",
        _PYTORCH,
        "if (damaged := archive.testzip()) is not None:",
        "if (damaged := archive.comment or None) is not None:",
        (f"{_formats}::test_every_flipped_bit_of_a_tensor_is_noticed_without_our_hash",),
    ),
    Fault(
        "pytorch: a pickle may call anything in the old way",
        _PYTORCH,
        'if operation.name in ("GLOBAL", "INST") and argument not in _CALLED:',
        'if operation.name == "GLOBAL" and argument not in _CALLED:',
        (f"{_formats}::test_an_archive_with_other_entries_is_refused",),
    ),
    Fault(
        "pytorch: a storage of an old file may claim any size",
        _PYTORCH,
        "    if size != expected:",
        "    if size > expected:",
        (f"{_formats}::test_a_damaged_file_of_pytorch_from_before_1_6_is_refused",),
    ),
    # ------------------------------------------------------------------------------- formats told, and a folder
    Fault(
        "formats: a file from before PyTorch 1.6 is a pickle like any other",
        _FORMATS,
        'if start[:4] == b"PK\\x03\\x04" or start.startswith(pytorch.LEGACY):',
        'if start[:4] == b"PK\\x03\\x04":',
        (f"{_formats}::test_a_file_of_pytorch_from_before_1_6_is_read",),
    ),
    Fault(
        "hugging face: pixels are scaled by 1/255 whatever the weights want",
        _CANONICAL,
        '"rescale_factor": prepare.scale,',
        '"rescale_factor": 1 / 255,',
        (f"{_convert}::test_a_folder_for_hugging_face_explains_itself[lenet-bn-frozen-1-LeNet]",),
    ),
    Fault(
        "hugging face: mean and deviation of the pictures are exchanged",
        _CANONICAL,
        '"image_mean": list(prepare.mean),\n        "image_std": list(prepare.std),',
        '"image_mean": list(prepare.std),\n        "image_std": list(prepare.mean),',
        (f"{_convert}::test_a_folder_for_hugging_face_explains_itself[lenet-bn-frozen-1-LeNet]",),
    ),
    # ----------------------------------------------------------------------------------------------------- ONNX
    Fault(
        "onnx: batch norm has the operator's own epsilon",
        _ONNX,
        "x, *arrays, epsilon=node.norm.epsilon)",
        "x, *arrays)",
        (f"{_ort}[torchvision-33x31-2]",),
    ),
    Fault(
        "onnx: mean and variance are exchanged",
        _ONNX,
        '("weight", "bias", "running_mean", "running_var")',
        '("weight", "bias", "running_var", "running_mean")',
        (f"{_ort}[lenet-bn-30x29-2]",),
    ),
    Fault(
        "onnx: a scale that is not learned is 0",
        _ONNX,
        "np.ones(node.out_channels, self.dtype)",
        "np.zeros(node.out_channels, self.dtype)",
        (f"{_ort}[lenet-bn-frozen-31x28-2]",),
    ),
    Fault(
        "onnx: pools round down",
        _ONNX,
        "        if node.op.ceil:\n",
        "        if False:\n",
        (f"{_ort}[bvlc-35x47-2]",),
    ),
    Fault(
        "onnx: pools round up at the near edge",
        _ONNX,
        "more = (0, 0, *(stride - 1 for stride in node.op.strides))",
        "more = (*(stride - 1 for stride in node.op.strides), 0, 0)",
        (f"{_ort}[bvlc-35x47-2]",),
    ),
    Fault(
        "onnx: windows pad above and left only",
        _ONNX,
        '"pads": [above, left, below, right]',
        '"pads": [above + below, left + right, 0, 0]',
        (f"{_ort}[d2l-33x30-2]",),
    ),
    Fault(
        "onnx: a window's stride is its side",
        _ONNX,
        '"strides": list(op.strides)',
        '"strides": list(op.sides)',
        (f"{_onnx}::test_the_graph_is_sound_and_its_shapes_are_those_of_the_spec[d2l-33x30-2]",),
    ),
    Fault(
        "onnx: the activation comes before batch norm",
        _ONNX,
        "**_window(node.op))\n        return self.activation(node, self.batch_norm(node, x))",
        "**_window(node.op))\n        return self.batch_norm(node, self.activation(node, x))",
        (f"{_ort}[torchvision-33x31-2]",),
    ),
    Fault(
        "onnx: ReLU follows every layer, in stage 2 too",
        _ONNX,
        "        kind = node.op.activation\n",
        '        kind = node.op.activation or "relu"\n',
        (f"{_ort}[d2lzh-32x29-1]",),
    ),
    Fault(
        "onnx: a sigmoid is a hard one",
        _ONNX,
        '"sigmoid": "Sigmoid"',
        '"sigmoid": "HardSigmoid"',
        (f"{_ort}[lenet-28x31-2]",),
    ),
    Fault(
        "onnx: LRN divides alpha by the size twice",
        _ONNX,
        "alpha=lrn.alpha, beta=lrn.beta",
        "alpha=lrn.alpha / lrn.size, beta=lrn.beta",
        (f"{_ort}[bvlc-35x47-2]", f"{_evaluator}[bvlc-35x47-2]"),
    ),
    Fault(
        "onnx: the 5x5 and the pool branch are exchanged",
        _ONNX,
        'f"{node.name}.concat", *read, axis=1',
        'f"{node.name}.concat", *read[:-2], read[-1], read[-2], axis=1',
        (f"{_ort}[d2l-33x30-2]",),
    ),
    Fault(
        "onnx: torchvision's heads average rows for columns",
        _ONNX,
        'rows = self.averaging_matrix(f"{name}.rows", x, axis=2, side=side)',
        'rows = self.averaging_matrix(f"{name}.rows", x, axis=3, side=side)',
        (f"{_ort}[torchvision-heads-97x65-1]",),
    ),
    Fault(
        "onnx: the windows of torchvision's heads do not overlap",
        _ONNX,
        'value(f"{name}.before_first", -side)',
        'value(f"{name}.before_first", -1)',
        (f"{_ort}[torchvision-heads-97x65-1]",),
    ),
    Fault(
        "onnx: the heads of the paper average with a stride of 5",
        _ONNX,
        'self.node("AveragePool", node.name, x, **window)',
        'self.node("AveragePool", node.name, x, **window | {"strides": list(node.op.sides)})',
        (f"{_onnx}::test_the_graph_is_sound_and_its_shapes_are_those_of_the_spec[bvlc-heads-223x224-1]",),
    ),
    Fault(
        "onnx: the last average is over the whole map",
        _ONNX,
        'self.node("AveragePool", node.name, x, **window)',
        'self.node("GlobalAveragePool", node.name, x)',
        (f"{_ort}[cnblogs-225x194-1]",),
    ),
    Fault(
        "onnx: the heads are no outputs",
        _ONNX,
        '["logits", *spec.head_names(config)]',
        '["logits", *spec.head_names(config)[:1]]',
        (f"{_onnx}::test_the_graph_uses_every_array_and_leaves_no_window_to_defaults[torchvision]",),
    ),
    Fault(
        "onnx: arrays are stored in the byte order of memory",
        _ONNX,
        'return np.asarray(x, x.dtype.newbyteorder("<"), order="C")',
        'return np.asarray(x, order="C")',
        (f"{_onnx}::test_equal_content_makes_equal_bytes",),
    ),
    Fault(
        "onnx: a file's graph is taken for the preset's",
        _ONNX,
        "        _check_graph(model, config, _dtype(arrays))\n",
        "",
        (f"{_onnx}::test_a_fault_in_the_graph_is_refused",),
    ),
    Fault(
        "onnx: a file's hash is not checked",
        _ONNX,
        "        understand(arrays, texts)\n        return Found",
        "        return Found",
        (f"{_onnx}::test_a_changed_file_is_refused",),
    ),
    Fault(
        "onnx: a file may name other files",
        _ONNX,
        "if any(x.external_data or x.data_location != TensorProto.DEFAULT for x in tensors):",
        "if not tensors:",
        (f"{_onnx}::test_a_changed_file_is_refused",),
    ),
    Fault(
        "judges: LRN does not divide alpha by the size",
        _JUDGES,
        "alpha / size * total",
        "alpha * total",
        (f"{_evaluator}[bvlc-35x47-2]",),
    ),
    Fault(
        "judges: a file in float64 keeps its constants",
        _JUDGES,
        "for tensor in (*model.graph.initializer, *constants):",
        "for tensor in model.graph.initializer:",
        (f"{_onnx}::test_onnx_runtime_takes_files_of_other_dtypes",),
    ),
    # ----------------------------------------------------------------------------------------------- conversion
    Fault(
        "convert: what was written is not read again",
        _CONVERT,
        "        _check_equal(read_weights(written, work, form).weights, weights, target)\n",
        "",
        (f"{_convert}::test_a_writer_that_changes_something_is_found_without_verification",),
    ),
    Fault(
        "convert: another dtype passes for the same",
        _CONVERT,
        '        and x.dtype.newbyteorder("=") == y.dtype.newbyteorder("=")\n',
        "",
        (f"{_convert}::test_a_writer_that_changes_something_is_found_without_verification",),
    ),
    Fault(
        "convert: another preset passes for the same",
        _CONVERT,
        "if changed or read.config != weights.config:",
        "if changed:",
        (f"{_convert}::test_a_writer_that_changes_something_is_found_without_verification",),
    ),
    Fault(
        "convert: a result that is another network is put in place",
        _CONVERT,
        "if verification is None or verification.passed:\n            _publish",
        "if verification is None or verification.logits >= 0:\n            _publish",
        (f"{_convert}::test_the_verification_finds_what_no_shape_shows[gluon-statistics_swapped-fc3]",),
    ),
    Fault(
        "convert: a rounded result is held against what was not rounded",
        _CONVERT,
        "    if rounded:\n        runners[0] = ",
        "    if rounded and runners[0] == 'spec':\n        runners[0] = ",
        (f"{_convert}::test_a_rounded_result_is_held_against_the_rounded_source",),
    ),
    Fault(
        "convert: the source is not run by its own framework",
        _CONVERT,
        "return form.runner if source.scheme == form.scheme else",
        'return form.runner if source.scheme == form.scheme and source.form != "pytorch" else',
        (f"{_convert}::test_a_source_that_its_own_framework_reads_otherwise_is_found",),
    ),
    Fault(
        "convert: rounding may make a number infinite",
        _CONVERT,
        "        spec.check_params(config, params)\n    preprocessing",
        "    preprocessing",
        (f"{_convert}::test_a_number_that_float32_cannot_hold_is_refused",),
    ),
    Fault(
        "convert: the classes' names stay behind",
        _CONVERT,
        '"labels": list(preprocessing.labels)})',
        '"labels": []})',
        (f"{_convert}::test_a_training_s_checkpoint_leaves_its_optimizer_behind",),
    ),
    Fault(
        "convert: of several networks that fit the first is taken",
        _CONVERT,
        "if len(configs) > 1:",
        "if len(configs) > 9:",
        (f"{_convert}::test_a_file_that_fits_several_presets_asks_which",),
    ),
    Fault(
        "convert: --preset overrules what a file says",
        _CONVERT,
        "if preset not in (None, config.preset):",
        "if preset not in (None, config.preset, *spec.PRESETS):",
        (f"{_convert}::test_a_file_that_says_which_preset_it_is_is_read_as_no_other",),
    ),
    Fault(
        "convert: a symbol's parameters stay behind",
        _CONVERT,
        'if path != written and path.name != "before":',
        'if path != written and path.name == "parameters":',
        (f"{_convert}::test_an_older_result_is_replaced_whole",),
    ),
    # ----------------------------------------------------------------------------------------------- inspection
    Fault(
        "inspect: a file that is not as it says is sound",
        _INSPECT,
        "return bool(self.fits) and self.problem is None and",
        "return bool(self.fits) and",
        ("tests/test_predict.py::test_inspection_fails_where_the_file_was_changed",),
    ),
    Fault(
        "inspect: infinite numbers enter the statistics",
        _INSPECT,
        "y = (x if bad == 0 else x[finite]).astype(np.float64)",
        "y = x.astype(np.float64)",
        ("tests/test_predict.py::test_inspection_names_what_is_not_finite_and_what_differs",),
    ),
    Fault(
        "inspect: not a number passes for sound",
        _INSPECT,
        "bad = x.size - int(finite.sum())",
        "bad = int(np.isinf(x).sum())",
        ("tests/test_predict.py::test_inspection_names_what_is_not_finite_and_what_differs",),
    ),
    # ---------------------------------------------------------------------------------- parameters of a backend
    Fault(
        "pt: dumped arrays are the model's own memory",
        "googlenet_pt/params.py",
        "tensors[name].cpu().numpy().copy()",
        "tensors[name].cpu().numpy()",
        (f"{_params}::test_a_model_shares_no_memory_with_the_caller[pt]",),
    ),
    Fault(
        "pt: parameters are loaded without a look at them",
        "googlenet_pt/params.py",
        "    spec.check_params(model.config, params)\n",
        "",
        (f"{_params}::test_parameters_that_do_not_fit_are_all_named_and_change_nothing[pt]",),
    ),
    Fault(
        "mx: scale and shift are exchanged, in and out",
        "googlenet_mx/params.py",
        '_CANONICAL = {"gamma": "weight", "beta": "bias"}',
        '_CANONICAL = {"gamma": "bias", "beta": "weight"}',
        (f"{_native}[mx-lenet-bn]",),
    ),
    Fault(
        "jax: mean and variance are exchanged, in and out",
        "googlenet_jax/params.py",
        '    "mean": "running_mean",\n    "var": "running_var",',
        '    "mean": "running_var",\n    "var": "running_mean",',
        (f"{_native}[jax-lenet-bn]",),
    ),
    Fault(
        "jax: dumped kernels have rows and columns exchanged",
        "googlenet_jax/params.py",
        "{4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}",
        "{4: (3, 2, 1, 0), 2: (1, 0), 1: (0,)}",
        (f"{_params}::test_float64_is_kept_exactly[jax]",),
    ),
    Fault(
        "jax: a model keeps the caller's memory",
        "googlenet_jax/params.py",
        "value = np.array(to_jax(params[canonical_name(path)]), model.stored_dtype)",
        "value = np.asarray(to_jax(params[canonical_name(path)]), model.stored_dtype)",
        (f"{_params}::test_a_model_shares_no_memory_with_the_caller[jax]",),
    ),
]
