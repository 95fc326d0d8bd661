"""The dumped step in PyTorch, channels_last: `torch_step.py DUMP STEPS [compile]`."""

import os
import sys

from same_step import Step, network, race, started

begin = started()
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # every round compiles

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

step = Step(sys.argv[1])
device = "cuda" if step.platform == "cuda" else "cpu"
if device == "cuda":
    # As XLA's default: matrix units with TF32 inputs for f32. Algorithms are chosen by trying them, as XLA does.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
mixed = torch.autocast(device, torch.bfloat16, enabled=step.precision == "bf16")


class Ops:
    def __init__(self, moving):
        self.moving = moving

    def conv(self, x, w, stride):
        return F.conv2d(x, w, stride=stride, padding=(w.shape[2] - 1) // 2)

    def norm(self, x, gamma, beta, name):
        mean, variance = self.moving[name + "/moving_mean"], self.moving[name + "/moving_variance"]
        return F.batch_norm(x, mean, variance, gamma, beta, training=True, momentum=1 - step.batch_norm_decay, eps=1e-5)

    def relu(self, x):
        return F.relu(x)

    def add(self, x, y):
        return x + y

    def max_pool(self, x):
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)

    def global_mean(self, x):
        return x.mean((2, 3))

    def matmul(self, x, w):
        return x @ w


def tensor(value, *order):
    """The array with its dimensions in another order, channels_last in memory if it has four."""
    value = torch.tensor(value, device=device)
    return value.permute(order).contiguous(memory_format=torch.channels_last) if order else value


def parameter(value):
    """Convolution kernels are HWIO in the dump and OIHW here."""
    return (tensor(value, 3, 2, 0, 1) if value.ndim == 4 else tensor(value)).requires_grad_()


def loss(parameters, moving, views):
    with mixed:
        z = network(Ops(moving), step, parameters, views)
    z = z.float()
    z = z * torch.rsqrt((z * z).sum(1, keepdim=True).clamp_min(1e-12))
    similarity = z @ z.T / step.temperature - torch.eye(len(z), device=device) * 1e9
    own = torch.arange(len(z), device=device).roll(step.batch)
    return F.cross_entropy(similarity, own, reduction="sum") / step.batch


parameters = {name: parameter(value) for name, value in step.parameters().items()}
moving = {name: tensor(value) for name, value in step.arrays.items() if "/moving_" in name}
views = tensor(step.arrays["views"], 0, 3, 1, 2)
groups = [
    {"params": [p for name, p in parameters.items() if step.decayed(name)], "weight_decay": step.weight_decay},
    {"params": [p for name, p in parameters.items() if not step.decayed(name)], "weight_decay": 0.0},
]
optimizer = torch.optim.SGD(groups, lr=0.0, momentum=step.momentum, nesterov=True, foreach=True)
forward = torch.compile(loss) if "compile" in sys.argv[3:] else loss


def run(rate):
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    value = forward(parameters, moving, views)
    value.backward()
    optimizer.step()
    return value.item()


def device_memory():
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


race(begin, step, int(sys.argv[2]), run, device_memory=device_memory)
