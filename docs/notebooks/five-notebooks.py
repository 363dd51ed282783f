# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # Five published notebooks, redone
#
# [中文](five-notebooks.zh-CN.md)
#
# Five notebooks, most of them in Chinese, teach GoogLeNet after Dive into Deep Learning: four in PyTorch and one in MXNet
# Gluon. Each builds "the" network. Here we build all of them from tables, look for where they differ, see what each
# difference does, and hold what they print against what our own runs print.

# %% [markdown] tags=["zh"]
# # 重做五本公开的笔记本
#
# [English](five-notebooks.md)
#
# 有五本公开的笔记本（大多用中文写成）跟着《动手学深度学习》讲GoogLeNet，四本用PyTorch，一本用MXNet Gluon，每一本都说自己搭的就是那个GoogLeNet。这里我们用表格把它们一一搭出来，找出不同之处，看看每处不同有什么后果，再拿它们打印的结果和我们自己跑出的结果对照。

# %%
from pathlib import Path

import numpy as np

import googlenet_mx
import googlenet_pt
import spec
from harness.agreement import relative_error
from harness.images.sources import digits, load_batch
from harness.training.recipe import recipe
from spec import reference
from spec.shapes import input_sizes

NOTEBOOKS = {  # by what they are: the network's preset, and the recipe where it is trained
    "PyTorch, after the first edition": ("d2lzh", "d2lzh-adam"),
    "PyTorch, written by hand": ("cnblogs", "cnblogs-adam"),
    "PyTorch, with the book's library": ("d2l", "d2l"),
    "Gluon, after the first edition": ("d2lzh-misprint", "d2lzh-mxnet"),
    "PyTorch, not trained": ("d2l", None),
}

# %% [markdown] tags=["en"]
# ## Four networks
#
# Two of the five are the same network. Of the other three, two have the same number of parameters as these, and are
# other networks. The second takes pictures of certain sizes only.

# %% [markdown] tags=["zh"]
# ## 其实是四个网络
#
# 五本之中有两本的网络相同。其余三个里，有两个的参数个数与它一样，却是不同的网络；第二个还只接受某些尺寸的图片。

# %%
for name, (preset, _) in NOTEBOOKS.items():
    config = spec.preset(preset)
    count, sides = f"{spec.parameter_count(config):,}", input_sizes(config)
    print(f"{name:34}{preset:16}{count} parameters, trained at {config.input_size}, takes {sides} pixels")

# %% [markdown] tags=["en"]
# The tables say where they differ from `d2l`, stage by stage:

# %% [markdown] tags=["zh"]
# 逐个阶段比较表格，就能看出它们与`d2l`的差别：

# %%
ours = dict(spec.preset("d2l").table)
for preset in ("d2lzh", "cnblogs", "d2lzh-misprint"):
    theirs = dict(spec.preset(preset).table)
    print(preset, "differs in", ", ".join(stage for stage in ours if theirs[stage] != ours[stage]))
    print("   dropout before the classifier:", spec.preset(preset).dropout)

# %% [markdown] tags=["en"]
# ## No activation in stage 2
#
# The notebooks after the first edition have no ReLU behind the two convolutions of the second stage. Without one, two
# convolutions in a row are one convolution, and what reaches the pool may be negative. We give both networks the same
# weights and the same digits: nothing in their names, shapes or counts differs, and the logits are others.

# %% [markdown] tags=["zh"]
# ## 第二个模块里没有激活函数
#
# 按第一版写的笔记本，第二个模块的两个卷积层后面都没有ReLU。没有激活函数，接连两个卷积层就只相当于一个，而且汇聚层会读到负数。我们给两个网络同样的权重和同样的手写数字：名字、形状、参数个数都没有区别，输出却不同。

# %%
images = load_batch(["digits"], spec.preset("d2l"), 48, 4, None).images
params = spec.init_params(spec.preset("d2l"), seed=1, scheme="he")
with_relu = reference.activations(spec.preset("d2l"), params, images)
without = reference.activations(spec.preset("d2lzh"), params, images)
for stage in ("pool1", "conv2", "inception3a", "inception5b", "fc"):
    print(f"{stage:12} {relative_error(without[stage], with_relu[stage]):.2g}")

# %% [markdown] tags=["en"]
# ## Two misprints that nobody sees
#
# The Gluon notebook has 108 for 208 in one block, and 34 for 24 in another. Gluon finds out how many channels come in when
# the network first runs, so nothing complains. The notebook prints the shapes after each group of blocks, and these
# are right. The number of parameters would have told.

# %% [markdown] tags=["zh"]
# ## 没人发现的两处笔误
#
# Gluon那本把一个块里的208写成了108，又把另一个块里的24写成了34。Gluon在网络第一次运行时才推断输入通道数，所以不会报错。笔记本打印了每组块之后的形状，这些都是对的；数一数参数，本来就能发现问题。

# %%
misprint = spec.preset("d2lzh-misprint")
right, wrong = (spec.stage_shapes(config, (1, 96, 96)) for config in (spec.preset("d2lzh"), misprint))
print("shapes that differ:", {stage: (right[stage], wrong[stage]) for stage in right if right[stage] != wrong[stage]})
shown = ("pool1", "pool2", "pool3", "pool4", "pool5")
print("shapes that are printed are the same:", all(right[stage] == wrong[stage] for stage in shown))
print(f"parameters: {spec.parameter_count(spec.preset('d2lzh')):,} and {spec.parameter_count(misprint):,}")

# %% [markdown] tags=["en"]
# ## A seven by seven average
#
# The network that was written by hand ends in an average of 7 x 7 pixels, which is the whole map for pictures of 193 to
# 224 pixels, and does not fit smaller ones. It has dropout before its classifier, and tests without switching to
# evaluation, so that dropout goes on while it is tested. What that does to the logits of a picture, by weights that
# nobody has trained yet:

# %% [markdown] tags=["zh"]
# ## 7 x 7的平均汇聚
#
# 手写的那个网络最后是7 x 7的平均汇聚层：输入为193到224像素时，它正好盖住整个特征图；图片再小，就放不下了。它在分类层之前用了暂退法，测试时却没有切换到评估模式，于是测试的时候仍在随机丢弃。用一组尚未训练的权重，看看这对同一张图片的输出有什么影响：

# %%
config = spec.preset("cnblogs")
params = spec.init_params(config, seed=1, scheme="he")
features = reference.activations(config, params, load_batch(["digits"], config, 224, 1, None).images)["pool5"]
weight, bias = params["fc.weight"], params["fc.bias"]
flat = features.reshape(1, -1)
rng = np.random.default_rng(0)
logits = flat @ weight.T + bias
dropped = [
    flat * (rng.random(flat.shape) >= config.dropout) / (1 - config.dropout) @ weight.T + bias for _ in range(200)
]
print("class by the network        ", logits.argmax())
print("classes with dropout left on", sorted({int(x.argmax()) for x in dropped}))
print(f"logits are off by           {np.mean([relative_error(x, logits) for x in dropped]):.2f} on average")

# %% [markdown] tags=["en"]
# ## What they print, and what ours prints
#
# A recipe is a notebook's training, with everything that it leaves to defaults written out. These are our runs on
# Fashion-MNIST, from `RESULTS.md`, beside what the notebooks print.

# %% [markdown] tags=["zh"]
# ## 它们打印的结果与我们的结果
#
# 一份配方（recipe）就是一本笔记本的训练过程，凡是笔记本交给默认值的地方都写明白了。下面是我们在Fashion-MNIST上的结果（出自`RESULTS.md`），旁边是笔记本打印的结果。

# %%
rows = [
    [cell.strip(" `*") for cell in line.strip("|").split("|")]
    for line in (Path(spec.__file__).parent.parent / "RESULTS.md").read_text().splitlines()
    if line.startswith("| `")
]
for name in ("d2lzh-adam", "cnblogs-adam", "d2l", "d2lzh-mxnet", "lenet-bn", "nin", "vgg11-narrow"):
    print(f"{name}: {recipe(name).published or 'prints no result'}")
    for run, backend, epochs, _, train, _, test, *_ in (row for row in rows if len(row) == 8):
        if run.split("`")[0].split(",")[0] == name:
            print(f"    ours, {backend}, epochs {epochs}: train accuracy {train}, test accuracy {test}")

# %% [markdown] tags=["en"]
# ## Why one epoch says nothing
#
# The Gluon notebook trains for one epoch by plain SGD with a rate of 0.1, and its printed test accuracy, 0.483, stands
# beside a train accuracy of 0.200. We do the same steps on scikit-learn's digits, in two frameworks, in float64. The loss
# stands at that of a network that guesses, ln 10 = 2.3026, and as long as it stands there, the two are one to all printed
# digits. LeNet with batch norm, from another part of the same notebook, learns from the first steps at the same rate.

# %% [markdown] tags=["zh"]
# ## 为什么一个迭代周期说明不了什么
#
# Gluon那本用学习率0.1的普通SGD只训练了一个迭代周期，打印出的测试精度是0.483，训练精度却只有0.200。我们在scikit-learn的手写数字上、用两个框架、以float64做同样的训练步骤。损失停在随机猜测的水平（ln 10 = 2.3026）附近；只要还停在那里，两个框架打印出来的每一位都相同。同一本笔记本里带批量规范化的LeNet，用同样的学习率，从最初几步起就在学。

# %%
pictures, labels = digits()


def losses(preset, package, rate, steps):
    config = spec.preset(preset)
    model = package.build(config, dtype="float64", device="cpu")
    package.load_params(model, spec.init_params(config, seed=0))
    optimizer = package.make_optimizer(model, spec.SGD(rate))
    order = np.random.default_rng(0).permutation(len(pictures))
    x = np.kron(pictures / 255, np.ones((1, 4, 4)))[:, None, 2:-2, 2:-2]  # 28 x 28
    found = []
    for step in range(steps):
        batch = order[step * 16 : (step + 1) * 16]
        found.append(float(package.train_step(model, optimizer, x[batch], labels[batch]).loss))
    return " ".join(f"{loss:.4f}" for loss in found[::4])


for preset, rate in (("d2lzh-misprint", 0.1), ("lenet-bn", 0.1)):
    for package in (googlenet_mx, googlenet_pt):
        print(f"{preset:15}{package.__name__:14}{losses(preset, package, rate, 21)}")

# %% [markdown] tags=["en"]
# ## What to try next
#
# - Take the misprint out: train `d2lzh` above in place of `d2lzh-misprint`. Does it leave the plateau earlier?
# - Give it batch norm: `spec.preset("torchvision", in_channels=1, num_classes=10, aux=False)` is a GoogLeNet with it. At
#   which rate does the loss fall, and how soon?
# - The exercises of these notebooks have a referee: `googlenet exercise` lists them; begin with
#   `googlenet exercise sizes`.
# - `googlenet train pt --recipe d2lzh-adam --data fashion-mnist --run runs/adam` is the first notebook's whole training.

# %% [markdown] tags=["zh"]
# ## 接下来可以试试
#
# - 改正笔误：在上面用`d2lzh`代替`d2lzh-misprint`来训练。它会更早离开平台期吗？
# - 加上批量规范化：`spec.preset("torchvision", in_channels=1, num_classes=10, aux=False)`就是一个带批量规范化的GoogLeNet。学习率取多少，损失才会下降？要过多久？
# - 这些笔记本里的习题现在有裁判了：`googlenet exercise`列出全部习题，可以从`googlenet exercise sizes`做起。
# - `googlenet train pt --recipe d2lzh-adam --data fashion-mnist --run runs/adam`就是第一本笔记本的完整训练。
