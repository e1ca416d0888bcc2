"""Measure torchvision, albumentations and Pillow for `input`, in a process without TensorFlow.

Reads lines "VARIANT<tab>IMAGES" and answers each with "CPU_SECONDS ELAPSED_SECONDS".
"""

import glob
import random
import resource
import sys
import time
from collections.abc import Callable

if __name__ == "__main__" and len(sys.argv) != 3:
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import numpy as np
import torch
from PIL import Image, ImageFilter

try:
    import torchvision
except RuntimeError:
    # Built for another torch, it lacks these two operators, without which it does not even load.
    # Where it has them, defining them before it does would end the process.
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
from torchvision import transforms

try:
    import albumentations
    import cv2
except ImportError:
    albumentations = None  # its rows are left out

MEAN, STDDEV = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WORKERS = 2


def pil_blur(image: Image.Image) -> Image.Image:
    """Blur as MoCo's and SimCLR's published PyTorch recipes do."""
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def chain(size: int, scale: tuple[float, float], blur) -> transforms.Compose:
    """Make SimCLR's augmentation in torchvision."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([blur], 0.5),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STDDEV),
        ]
    )


def albumentations_chain() -> "albumentations.Compose":
    """Make SimCLR's augmentation in albumentations."""
    jitter = albumentations.ColorJitter((0.2, 1.8), (0.2, 1.8), (0.2, 1.8), (-0.2, 0.2), p=0.8)
    return albumentations.Compose(
        [
            albumentations.RandomResizedCrop((224, 224), (0.08, 1.0)),
            albumentations.HorizontalFlip(),
            jitter,
            albumentations.ToGray(p=0.2),
            albumentations.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=0.5),
            albumentations.Normalize(MEAN, STDDEV),
        ]
    )


class Images(torch.utils.data.Dataset):
    """`count` files, over and over, each through `load`."""

    def __init__(self, files: list[str], count: int, load):
        self.files, self.count, self.load = files, count, load

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int):
        return self.load(self.files[i % len(self.files)])


def through(*pipelines: transforms.Compose) -> Callable[[str], list[torch.Tensor]]:
    def load(file: str) -> list[torch.Tensor]:
        image = Image.open(file).convert("RGB")
        return [pipeline(image) for pipeline in pipelines]

    return load


def with_albumentations(file: str) -> torch.Tensor:
    image = cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB)
    view = albumentations_chain.made(image=image)["image"].transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(view))


def decode_alone(file: str) -> int:
    return np.asarray(Image.open(file).convert("RGB")).shape[0]


def seconds() -> tuple[float, float]:
    """CPU seconds of this process and of its children that have ended; time."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used), time.perf_counter()


def main() -> None:
    originals, packed = (sorted(glob.glob(f"{folder}/*")) for folder in sys.argv[1:3])
    torch.set_num_threads(1)
    pil = chain(224, (0.08, 1.0), transforms.Lambda(pil_blur))
    own = chain(224, (0.08, 1.0), transforms.GaussianBlur(23, (0.1, 2.0)))
    small = chain(96, (0.08, 0.14), transforms.Lambda(pil_blur))
    several = through(chain(160, (0.14, 1.0), transforms.Lambda(pil_blur)), small, small, small)
    variants = {
        "torchvision": (through(pil), originals),
        "torchvision, packed": (through(pil), packed),
        "torchvision, its own blur": (through(own), originals),
        "torchvision, its own blur, packed": (through(own), packed),
        "torchvision, multi-crop, packed": (several, packed),
        "Pillow, decoding alone": (decode_alone, originals),
        "Pillow, decoding alone, packed": (decode_alone, packed),
    }
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if albumentations:
        cv2.setNumThreads(0)
        albumentations_chain.made = albumentations_chain()
        versions += f", albumentations {albumentations.__version__}"
        variants["albumentations"] = with_albumentations, originals
        variants["albumentations, packed"] = with_albumentations, packed
    print("\t".join([versions, *variants]), flush=True)
    for line in sys.stdin:
        name, count = line.rstrip("\n").split("\t")
        load, files = variants[name]
        cpu, wall = seconds()
        # Forked, so that their CPU time is that of children, which end with the loop.
        loader = torch.utils.data.DataLoader(
            Images(files, int(count), load), 50, num_workers=WORKERS, multiprocessing_context="fork"
        )
        for _ in loader:
            pass
        after_cpu, after = seconds()
        print(after_cpu - cpu, after - wall, flush=True)


if __name__ == "__main__":
    main()
