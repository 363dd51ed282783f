# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # Benchmark fairly
#
# [中文](benchmark-fairly.zh-CN.md)
#
# Which framework is the fastest? A few lines measure it, and a few lines get it wrong. Here are three mistakes that many
# published comparisons have in them, made on purpose, and what each does to the numbers. The figures are of the machine
# that last ran this page; yours will have others, and the same mistakes.

# %% [markdown] tags=["zh"]
# # 公平地测速
#
# [English](benchmark-fairly.md)
#
# 哪个框架最快？几行代码就能测，几行代码也足以测错。下面故意犯三个错误，许多公开的对比里都能见到它们，看看每个错误会把数字变成什么样。页中的数字出自最近一次运行本页的机器；换到你的机器上，数字会不同，错误却是一样的。

# %%
import time
from statistics import median

import numpy as np

import googlenet_jax
import googlenet_mx
import googlenet_pt
import spec
from harness.agreement import relative_error
from harness.images.sources import load_batch
from spec import reference

FRAMEWORKS = {"PyTorch": googlenet_pt, "Gluon": googlenet_mx, "Flax": googlenet_jax}
config = spec.preset("lenet")
params = spec.init_params(config, seed=0)
images = load_batch(["digits"], config, 28, 512, None).images.astype("float32")

# %% [markdown] tags=["en"]
# ## Before any clock: is it the same work?
#
# A network that does something else may well be faster. So nothing is timed here that has not been held against the
# referee first.

# %% [markdown] tags=["zh"]
# ## 计时之前：做的是同一件事吗？
#
# 做的事不同，当然可能更快。所以在这里，没有先和裁判核对过的，一律不计时。

# %%
expected = reference.predict(config, params, images)
models, inputs, runs = {}, {}, {}
for name, package in FRAMEWORKS.items():
    models[name] = package.LeNet(config, dtype="float32", device="cpu")
    package.load_params(models[name], params)
    inputs[name] = package.images_to_device(models[name], images)
    runs[name] = package.predictor(models[name], inputs[name])
    error = relative_error(package.predict(models[name], images), expected)
    print(f"{name:8} {'the same function' if error < 1e-5 else 'ANOTHER function'}")

# %% [markdown] tags=["en"]
# ## The first mistake: not waiting
#
# JAX puts the work in a queue and comes back at once. So does PyTorch on a GPU, and so does MXNet as it comes (its other
# engine, which waits, is the faster one on a CPU, and is used here). Whoever stops the clock there has measured how long
# it takes to ask.

# %% [markdown] tags=["zh"]
# ## 第一个错误：没有等它算完
#
# JAX把计算放进队列就立刻返回。PyTorch在GPU上也是这样，默认设置下的MXNet也是这样（它另有一种会等待的引擎，在CPU上更快，这里用的就是它）。此时就停表，测到的只是“吩咐一声”所用的时间。


# %% tags=["varies"]
def milliseconds(name, *, wait):
    start = time.perf_counter()
    result = runs[name](inputs[name])
    if wait:
        FRAMEWORKS[name].wait(result)
    elapsed = time.perf_counter() - start
    FRAMEWORKS[name].wait(result)  # so that nothing of it is left for the next one
    return 1000 * elapsed


for name in FRAMEWORKS:
    pairs = [(milliseconds(name, wait=False), milliseconds(name, wait=True)) for _ in range(25)]
    asked, done = (median(column) for column in zip(*pairs[5:], strict=True))  # after five to warm up
    print(f"{name:8} {asked:7.2f} ms until it comes back   {done:7.2f} ms until it is done   {done / asked:5.1f} times")

# %% [markdown] tags=["en"]
# ## The second: counting what happens once
#
# The first call compiles, allocates, and chooses algorithms. A loop of ten that starts the clock before it spreads that
# over ten calls, and the framework that compiles looks slow; a training runs thousands of them.

# %% [markdown] tags=["zh"]
# ## 第二个错误：把只发生一次的事也算进去
#
# 第一次调用要编译、分配内存、挑选算法。如果从第一次就开始计时、总共只跑十次，这些开销就摊到了十次上，会编译的框架便显得很慢；而真正的训练要跑成千上万次。

# %% tags=["varies"]
for name, package in FRAMEWORKS.items():
    start = time.perf_counter()
    run = package.predictor(models[name], inputs[name])
    for _ in range(10):
        package.wait(run(inputs[name]))
    with_first = 100 * (time.perf_counter() - start)
    later = median(milliseconds(name, wait=True) for _ in range(15))
    print(
        f"{name:8} {with_first:7.2f} ms each of the first ten   {later:7.2f} ms each later   {with_first / later:5.1f} times"
    )

# %% [markdown] tags=["en"]
# ## The third: another precision
#
# NumPy makes float64, and nobody asked for it. PyTorch takes such an array as it is and computes in float64; JAX, as it
# comes, makes it float32 and says nothing. The same line, half of the digits, and another time.

# %% [markdown] tags=["zh"]
# ## 第三个错误：精度不同
#
# NumPy默认生成float64，并没有人这样要求。PyTorch照单全收，用float64来算；JAX在默认设置下会悄悄转成float32。同样一行代码，有效数字少了一半，时间自然也不同。

# %%
import jax.numpy as jnp
import torch

array = np.ones((600, 600))
print("NumPy  ", array.dtype)
print("PyTorch", torch.tensor(array).dtype)
print("JAX    ", jnp.asarray(array).dtype)


# %% tags=["varies"]
def product(x, y):
    start = time.perf_counter()
    for _ in range(5):
        getattr(x @ y, "block_until_ready", lambda: None)()
    return time.perf_counter() - start


for label, make in {
    "PyTorch, float64": torch.tensor,
    "PyTorch, float32": lambda x: torch.tensor(x).float(),
    "JAX": jnp.asarray,
}.items():
    x = make(array)
    product(x, x)
    print(f"{label:17} {200 * median(product(x, x) for _ in range(9)):6.2f} ms")

# %% [markdown] tags=["en"]
# ## How it is done
#
# Warm up, wait for the result, and take turns: one round of each, again and again, so that whatever else the machine does
# happens to all of them. Then divide within each round, and take the median of the ratios with its spread. The quartiles
# say whether the difference is one.

# %% [markdown] tags=["zh"]
# ## 应该怎样测
#
# 先预热，再等结果算完，并且轮流来：每一轮让每个框架各跑一次，如此反复，这样机器上别的事情对谁都有影响。然后在每一轮之内相除，取比值的中位数，并给出它的离散程度。看四分位数，就知道差别是不是真的。

# %% tags=["varies"]
for name in FRAMEWORKS:
    milliseconds(name, wait=True)
rounds = [{name: milliseconds(name, wait=True) for name in FRAMEWORKS} for _ in range(40)]
for name in FRAMEWORKS:
    low, middle, high = np.quantile([row["PyTorch"] / row[name] for row in rounds], [0.25, 0.5, 0.75])
    print(f"{name:8} {middle:5.2f} times as fast as PyTorch, the middle half of the rounds {low:.2f} to {high:.2f}")

# %% [markdown] tags=["en"]
# ## What to try next
#
# - Run the last cell twice, and once more with a video playing. Which of the figures moves, the milliseconds or the
#   ratios?
# - Give one of the frameworks a single thread (`torch.set_num_threads(1)`), and see what the comparison then says.
# - `googlenet bench pt mx jax --batch 128 --out bench` does all of this in processes of their own, with what the machine
#   is and how busy it was; `docs/performance.md` says what was found.

# %% [markdown] tags=["zh"]
# ## 接下来可以试试
#
# - 把最后一格运行两遍，再一边放视频一边运行一遍。变动大的是毫秒数，还是比值？
# - 让其中一个框架只用一个线程（`torch.set_num_threads(1)`），看看对比结果会怎么说。
# - `googlenet bench pt mx jax --batch 128 --out bench`在各自的进程里完成上述一切，并记下机器的型号和忙碌程度；`docs/performance.md`写着我们的发现。
