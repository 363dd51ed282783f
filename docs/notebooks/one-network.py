# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # One network in three frameworks
#
# [中文](one-network.zh-CN.md)
#
# GoogLeNet, written in PyTorch, MXNet Gluon and JAX/Flax. Three programs with the same shapes and the same number of
# parameters need not be the same network. Here we give all three the same weights and the same pictures, and a referee
# who needs nothing but NumPy says at which stage they part, if they do.

# %% [markdown] tags=["zh"]
# # 一个网络，三个框架
#
# [English](one-network.md)
#
# 同一个GoogLeNet，分别用PyTorch、MXNet Gluon和JAX/Flax写成。三个程序的输出形状相同、参数个数也相同，并不能说明它们是同一个网络。本篇给三者同样的权重和同样的图片，再请一位只用NumPy的“裁判”逐个阶段核对：如果它们在某处分道扬镳，裁判会指出是哪里。

# %%
import inspect

import googlenet_jax
import googlenet_mx
import googlenet_pt
import spec
from harness.agreement import relative_error
from harness.images.sources import load_batch
from spec import reference
from spec.table import render

FRAMEWORKS = {"PyTorch": googlenet_pt, "Gluon": googlenet_mx, "Flax": googlenet_jax}

# %% [markdown] tags=["en"]
# ## The table
#
# Everything starts from one table, the paper's Table 1. Here it is as the textbook has it, for grey pictures of
# 48 x 48 pixels. Each framework's layers take their numbers from it, so that no number stands in the code twice.

# %% [markdown] tags=["zh"]
# ## 从一张表开始
#
# 一切都出自同一张表，即论文中的表1。下面是教科书所用的版本，输入为48 x 48的灰度图片。三个框架的各层都从这张表里取数，因此同一个数字不会在代码里出现两次。

# %%
config = spec.preset("d2l")
print(render(config, (1, 48, 48)))

# %% [markdown] tags=["en"]
# ## The Inception block, line by line
#
# Four branches read the same map, and what they put out is joined over the channels. Compare the three: the lines are
# the same, but for the base class, the name of the method, and the axis of the channels, which is the second one in
# PyTorch and Gluon and the last one in Flax.

# %% [markdown] tags=["zh"]
# ## Inception块，逐行对照
#
# 四条并行路径读取同一个特征图，再把各自的输出在通道维上连结起来。对照三段代码：除了基类、方法名和通道所在的轴之外，每一行都一样。通道在PyTorch和Gluon中是第二个轴，在Flax中是最后一个轴。

# %%
print(inspect.getsource(googlenet_pt.googlenet.Inception))

# %%
print(inspect.getsource(googlenet_mx.googlenet.Inception))

# %%
print(inspect.getsource(googlenet_jax.googlenet.Inception))

# %% [markdown] tags=["en"]
# ## The same weights, the same pictures
#
# Weights are NumPy arrays with one name for all frameworks. `load_params` is strict, copies them, and turns them into
# the layout that the framework wants: a kernel is (out, in, height, width) here, and (height, width, in, out) in Flax.
# The pictures are four of scikit-learn's handwritten digits, so nothing has to be downloaded.

# %% [markdown] tags=["zh"]
# ## 同样的权重，同样的图片
#
# 权重是一组NumPy数组，在所有框架里用同一套名字。`load_params`严格核对名字和形状，复制数值，并换成该框架要的布局：卷积核在这里是（输出通道，输入通道，高，宽），在Flax中是（高，宽，输入通道，输出通道）。图片是scikit-learn自带的四张手写数字，所以不必下载任何东西。

# %%
params = spec.init_params(config, seed=1, scheme="he")
images = load_batch(["digits"], config, 48, 4, None).images
models = {}
for name, package in FRAMEWORKS.items():
    models[name] = package.GoogLeNet(config, dtype="float64", device="cpu")
    package.load_params(models[name], params)

print("images", images.shape)
print("parameters", f"{spec.parameter_count(config):,}")
print("conv2 in PyTorch", tuple(models["PyTorch"].conv2.weight.shape))
print("conv2 in Gluon  ", models["Gluon"].conv2.weight.shape)
print("conv2 in Flax   ", models["Flax"].conv2.kernel.shape)

# %% [markdown] tags=["en"]
# ## The verdict
#
# The referee computes every stage in float64 with plain NumPy. Each framework does the same, and we look at the largest
# difference, as a share of the largest number of the stage. In float64 rounding alone makes about 1e-15. Anything
# above 1e-12 would be another function.

# %% [markdown] tags=["zh"]
# ## 裁判的结论
#
# 裁判用NumPy以float64算出每个阶段的输出，各框架也照做一遍。我们看最大的差值占该阶段最大数值的比例。在float64下，单是舍入就会带来大约1e-15的差别；若超过1e-12，那就是另一个函数了。

# %%
expected = reference.activations(config, params, images)
computed = {name: package.activations(models[name], images) for name, package in FRAMEWORKS.items()}


def show(stages, name):
    error = relative_error(stages[name], expected[name])
    return "the same" if error < 1e-12 else f"{error:.2g}"


print(f"{'stage':14}{'shape':>16}" + "".join(f"{name:>12}" for name in FRAMEWORKS))
for stage, x in expected.items():
    shape = " x ".join(map(str, x.shape[1:]))
    print(f"{stage:14}{shape:>16}" + "".join(f"{show(computed[name], stage):>12}" for name in FRAMEWORKS))

# %% [markdown] tags=["en"]
# The numbers themselves, which depend a little on the processor:

# %% [markdown] tags=["zh"]
# 下面是误差本身，具体数值随处理器略有不同：

# %% tags=["varies"]
for name in FRAMEWORKS:
    worst = max(relative_error(computed[name][stage], x) for stage, x in expected.items())
    print(f"{name:8} at most {worst:.1e} off the referee")

# %% [markdown] tags=["en"]
# ## What would not have been noticed
#
# The textbook's JAX version pads its first convolution with `"SAME"`. At an even size that puts two pixels before the
# picture and three behind it, where the other versions put three on every side. We make that one change, and nothing
# else.

# %% [markdown] tags=["zh"]
# ## 不核对就发现不了的差别
#
# 教科书的JAX版本在第一个卷积层用了`"SAME"`填充。当边长为偶数时，它在图片前面填充两个像素、后面填充三个；而其他版本每边都填充三个。我们只改这一处。

# %%
models["Flax"].conv1.padding = "SAME"
shifted = googlenet_jax.activations(models["Flax"], images)
print("the same shapes:", all(shifted[stage].shape == x.shape for stage, x in expected.items()))
for stage in ("conv1", "pool1", "conv2", "inception3a", "inception4e", "inception5b", "fc"):
    print(f"{stage:12} {show(shifted, stage)}")

# %% [markdown] tags=["en"]
# Every shape is as it was, and so is the number of parameters. Only the numbers are others, and nobody sees that who
# does not compare them: there is no error and no warning. With somebody else's weights this is another network.
#
# ## What to try next
#
# - Set `models["Flax"].conv1.padding` back, and take the activation out of one layer
#   (`models["PyTorch"].conv2_reduce.activation = None`). Where does the difference begin, and does it grow?
# - Give the models pictures of 47 x 47 pixels. Does `"SAME"` still make a difference? Why not?
# - `googlenet compare` does all this for gradients and a training step as well, each framework in a process of its own.
# - `googlenet exercise port-the-stem` asks you to write the first five stages yourself, and judges them.

# %% [markdown] tags=["zh"]
# 形状没变，参数个数也没变，变的只有数值：不比较就看不出来，既不报错，也没有警告。载入别人的权重之后，这已经是另一个网络了。
#
# ## 接下来可以试试
#
# - 把`models["Flax"].conv1.padding`改回来，再去掉某一层的激活函数（`models["PyTorch"].conv2_reduce.activation = None`）。差别从哪里开始？之后会变大吗？
# - 换成47 x 47的图片，`"SAME"`还有影响吗？为什么没有了？
# - `googlenet compare`对梯度和一步训练也做同样的核对，每个框架都在自己的进程里运行。
# - `googlenet exercise port-the-stem`请你自己写出前五个阶段，并当场评判。
