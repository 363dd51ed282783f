# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # Port a network
#
# [中文](port-a-network.zh-CN.md)
#
# From a PyTorch file to Gluon, Flax and ONNX, with a proof at each step; and then three mistakes, made on purpose, which
# leave every shape and every count as it was. The network is LeNet with batch norm: it is small, so that everything runs
# in seconds, and it has what goes wrong in porting, a dense layer after a map among it.

# %% [markdown] tags=["zh"]
# # 移植一个网络
#
# [English](port-a-network.md)
#
# 从一个PyTorch文件出发，移植到Gluon、Flax和ONNX，每一步都有证明；然后故意犯三个错误，它们都不会改变任何形状和参数个数。用的网络是带批量规范化的LeNet：它很小，几秒钟就能跑完，移植时容易出错的地方它又都有，比如特征图后面紧跟着的全连接层。

# %% [markdown] tags=["en"]
# ## Somebody's network
#
# A file, as anybody would write it. We let it see some digits, so that its running statistics are its own, and keep its
# weights.

# %% [markdown] tags=["zh"]
# ## 别人的网络
#
# 这是一个普普通通的文件，谁都会这么写。我们先让它看一些手写数字，使它有自己的移动平均统计量，然后存下权重。

# %%
# %%writefile mine.py
from torch import nn


def Net():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.BatchNorm2d(6),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.BatchNorm2d(16),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120),
        nn.BatchNorm1d(120),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        nn.BatchNorm1d(84),
        nn.Sigmoid(),
        nn.Linear(84, 10),
    )


# %% tags=["varies"]
import numpy as np
import torch
from mine import Net
from PIL import Image

from harness.images.sources import digits

torch.manual_seed(0)
pictures, labels = digits()
x = torch.tensor(np.kron(pictures / 255, np.ones((1, 4, 4)))[:, None, 2:-2, 2:-2], dtype=torch.float32)  # 28 x 28
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
for batch in torch.arange(1536).repeat(6).split(64):
    loss = torch.nn.functional.cross_entropy(model(x[batch]), torch.tensor(labels)[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
torch.save(model.state_dict(), "mine.pt")
Image.fromarray((x[1700, 0].numpy() * 255).astype(np.uint8)).save("digit.png")
right = model.eval()(x[1536:]).argmax(1) == torch.tensor(labels)[1536:]
print(f"{right.float().mean():.0%} of the digits that it has not seen are right; digit.png is a {labels[1700]}")

# %% [markdown] tags=["en"]
# ## Which network is it?
#
# `googlenet check` runs it, reads what it does, runs that again with the referee, and holds it against a preset: in
# inference, at another size, and in training.

# %% [markdown] tags=["zh"]
# ## 它究竟是哪个网络？
#
# `googlenet check`运行它，读出它做了什么，由裁判重新算一遍，再与一个预设网络逐项对照：推理时、换一个尺寸时，以及训练时。

# %% language="bash"
# googlenet check mine.py:Net --weights mine.pt --against lenet-bn

# %% [markdown] tags=["en"]
# ## To the other frameworks
#
# So its weights are those of `lenet-bn`. Each conversion ends with a proof: what was written is read again, bit for bit,
# and each side runs in its own framework on the same pictures. In float64 they agree to twelve digits; ONNX Runtime has
# float32 only.

# %% [markdown] tags=["zh"]
# ## 移植到其他框架
#
# 可见它的权重就是`lenet-bn`的权重。每次转换都以一个证明收尾：写下的文件重新读回，逐位核对；两边各自在自己的框架里对同样的图片运行。在float64下，两者有十二位数字相同；ONNX Runtime只有float32。

# %% tags=["varies"] language="bash"
# for file in mine.params mine.msgpack mine.onnx; do
#     googlenet convert mine.pt $file --preset lenet-bn --names canonical 2> /dev/null
# done

# %% [markdown] tags=["en"]
# One picture, four programs that compute it, one answer:

# %% [markdown] tags=["zh"]
# 同一张图片，四个程序来算，答案只有一个：

# %% tags=["varies"] language="bash"
# googlenet predict digit.png --weights mine.onnx --backends pt,mx,jax,onnx --top 3 2> /dev/null

# %% [markdown] tags=["en"]
# ## The first mistake: a word that means its opposite
#
# Here is the same network in Gluon, with the momentum of 0.1 that PyTorch has. In Gluon a momentum of 0.1 keeps a tenth of
# the old statistics; in PyTorch it takes a tenth of the new ones. Predictions are the same until it is trained.

# %% [markdown] tags=["zh"]
# ## 第一个错误：同一个词，意思相反
#
# 下面是同一个网络的Gluon版本，动量照PyTorch的习惯写成0.1。在Gluon里，动量0.1表示保留十分之一的旧统计量；在PyTorch里，它表示采用十分之一的新统计量。不训练的话，预测结果完全一样。

# %%
# %%writefile in_gluon.py
from mxnet.gluon import nn


def Net():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(6, 5),
        nn.BatchNorm(momentum=0.1),
        nn.Activation("sigmoid"),
        nn.MaxPool2D(2),
        nn.Conv2D(16, 5),
        nn.BatchNorm(momentum=0.1),
        nn.Activation("sigmoid"),
        nn.MaxPool2D(2),
        nn.Dense(120),
        nn.BatchNorm(momentum=0.1),
        nn.Activation("sigmoid"),
        nn.Dense(84),
        nn.BatchNorm(momentum=0.1),
        nn.Activation("sigmoid"),
        nn.Dense(10),
    )
    return net


# %% language="bash"
# googlenet check in_gluon.py:Net --against lenet-bn
# echo "exit status $?"

# %% [markdown] tags=["en"]
# ## The second: the order in which a map becomes a row
#
# In Flax a map is (height, width, channels), and `reshape` flattens it in that order. The first dense layer has the same
# shape whichever order it is, and weights that were transposed as all others are belong to the other one.

# %% [markdown] tags=["zh"]
# ## 第二个错误：特征图展平的顺序
#
# 在Flax中，特征图是（高，宽，通道），`reshape`就按这个顺序展平。无论哪种顺序，第一个全连接层的形状都一样；可是照其他层的办法转置过来的权重，对应的却是另一种顺序。

# %%
# %%writefile in_flax.py
from flax import nnx


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv1, self.norm1 = nnx.Conv(1, 6, (5, 5), padding=0, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)
        self.conv2, self.norm2 = nnx.Conv(6, 16, (5, 5), padding=0, rngs=rngs), nnx.BatchNorm(16, rngs=rngs)
        self.fc3, self.norm3 = nnx.Linear(256, 120, rngs=rngs), nnx.BatchNorm(120, rngs=rngs)
        self.fc4, self.norm4 = nnx.Linear(120, 84, rngs=rngs), nnx.BatchNorm(84, rngs=rngs)
        self.fc5 = nnx.Linear(84, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.sigmoid(self.norm1(self.conv1(x))), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.sigmoid(self.norm2(self.conv2(x))), (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        x = nnx.sigmoid(self.norm3(self.fc3(x)))
        return self.fc5(nnx.sigmoid(self.norm4(self.fc4(x))))


# %% language="bash"
# googlenet check in_flax.py:Net --against lenet-bn
# echo "exit status $?"

# %% [markdown] tags=["en"]
# It tells one more, which nobody made on purpose: left alone, Flax takes a hundredth of the new statistics.
#
# ## The third: a default that is another one elsewhere
#
# Keras has an epsilon of 0.001 in its batch norm, and PyTorch one of 0.00001. Whoever ports from Keras and writes the layer
# without its settings gets this, or here the other way round. No name, shape or count shows it.

# %% [markdown] tags=["zh"]
# 它还指出了一个并非故意的差别：不写明的话，Flax只采用百分之一的新统计量。
#
# ## 第三个错误：别处的默认值不一样
#
# Keras的批量规范化层里epsilon是0.001，PyTorch则是0.00001。从Keras移植过来、没有写明参数的人，就会遇到这个差别；这里我们反过来做。名字、形状、参数个数，都看不出来。

# %% language="bash"
# sed 's/\(BatchNorm.d([0-9]*\)/\1, eps=0.001/' mine.py > from_keras.py
# googlenet check from_keras.py:Net --weights mine.pt --against lenet-bn
# echo "exit status $?"

# %% [markdown] tags=["en"]
# ## What to try next
#
# - Put right what the lines say, from the top, until the last line says that it is the same function.
# - Read the phrasebook of operations, with 27 such traps and what each does, in `docs/porting.md`.
# - Do it without being told: `googlenet exercise carry-the-weights` and `googlenet exercise batch-norm`.
# - A port in a language that nothing here can run is judged by its numbers: `googlenet vectors lenet --out kit`.

# %% [markdown] tags=["zh"]
# ## 接下来可以试试
#
# - 按提示从上往下逐条改正，直到最后一行说“它是同一个函数”。
# - 读一读各种运算的对照手册，里面有27个这样的陷阱和各自的后果，见`docs/porting.md`。
# - 不看提示自己做：`googlenet exercise carry-the-weights`和`googlenet exercise batch-norm`。
# - 如果移植用的语言在这里运行不了，可以凭它算出的数来评判：`googlenet vectors lenet --out kit`。
