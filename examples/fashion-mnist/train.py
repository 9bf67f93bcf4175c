#!/usr/bin/python3
"""Trains a small network (numpy) on images in class folders and prints its accuracy on images that it did not see.

    train.py FOLDER [--epochs 2]

FOLDER holds train/<class>/<image> and test/<class>/<image>; or <class>/<image> alone, then every tenth image is the test.
Every epoch reads every image file again, in a new random order, with eight threads, as a data loader does.
"""
import argparse
import concurrent.futures
import os
import pathlib
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices this small are slower with more
import numpy as np
from PIL import Image

SIDE, BATCH, HIDDEN, RATE, READERS = 28, 50, 128, 0.1, 8


def find_images(folder):
    """(path, class number) of every image, and the names of the classes."""
    classes = sorted(e.name for e in os.scandir(folder) if e.is_dir())
    return [(e.path, label) for label, name in enumerate(classes)
            for e in sorted(os.scandir(os.path.join(folder, name)), key=lambda e: e.name)], classes


def read_image(path):
    with Image.open(path) as image:
        if image.mode != "L" or image.size != (SIDE, SIDE):
            image = image.convert("L").resize((SIDE, SIDE))
        return np.asarray(image, np.float32).ravel() / 255


def batches(pool, samples):
    """The images and labels of `samples`, a batch at a time, with the next batches being read meanwhile."""
    parts = [samples[i:i + BATCH] for i in range(0, len(samples), BATCH)]
    images = pool.map(lambda part: np.stack([read_image(path) for path, _ in part]), parts)
    for part, x in zip(parts, images):
        yield x, np.array([label for _, label in part])


class Network:
    """One hidden layer of ReLUs, softmax, stochastic gradient descent with momentum."""

    def __init__(self, random, outputs):
        sizes = [(SIDE * SIDE, HIDDEN), (HIDDEN, outputs)]
        self.weights = [random.normal(0, (2 / m) ** 0.5, (m, n)).astype(np.float32) for m, n in sizes]
        self.biases = [np.zeros(n, np.float32) for _, n in sizes]
        self.speeds = [np.zeros_like(p) for p in self.weights + self.biases]

    def forward(self, x):
        hidden = np.maximum(x @ self.weights[0] + self.biases[0], 0)
        return hidden, hidden @ self.weights[1] + self.biases[1]

    def learn(self, x, labels, rate):
        hidden, scores = self.forward(x)
        error = np.exp(scores - scores.max(1, keepdims=True))
        error /= error.sum(1, keepdims=True)
        error[np.arange(len(labels)), labels] -= 1
        error /= len(labels)
        back = (error @ self.weights[1].T) * (hidden > 0)
        gradients = [x.T @ back, hidden.T @ error, back.sum(0), error.sum(0)]
        for parameter, speed, gradient in zip(self.weights + self.biases, self.speeds, gradients):
            speed *= 0.9
            speed -= rate * gradient
            parameter += speed


def store_requests(folder):
    """How many requests leat has sent to the store for this attachment so far, or None where it is no attachment."""
    try:
        return int(os.getxattr(folder, "user.leat.requests"))
    except OSError:
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()

    if (args.folder / "train").is_dir():
        train, classes = find_images(args.folder / "train")
        test, _ = find_images(args.folder / "test")
    else:
        images, classes = find_images(args.folder)
        train, test = [s for i, s in enumerate(images) if i % 10], images[::10]
    if len(classes) < 2 or not train or not test:
        raise SystemExit(f"train.py: {args.folder} holds no images in class folders (train/<class>/<image>, test/<class>/<image>)")
    print(f"{len(train)} images to learn from, {len(test)} to test with, {len(classes)} classes", flush=True)

    random = np.random.default_rng(1)
    network = Network(random, len(classes))
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        for epoch in range(1, args.epochs + 1):
            begin, asked = time.monotonic(), store_requests(args.folder)
            order = [train[i] for i in random.permutation(len(train))]
            for x, labels in batches(pool, order):
                network.learn(x, labels, RATE / (2 * epoch))
            line = f"epoch {epoch}: {time.monotonic() - begin:.1f} s"
            if asked is not None:
                line += f", {store_requests(args.folder) - asked} requests to the store"
            print(line, flush=True)
        right = sum(int((network.forward(x)[1].argmax(1) == labels).sum()) for x, labels in batches(pool, test))
    print(f"accuracy {right / len(test):.2f}", flush=True)


if __name__ == "__main__":
    main()
