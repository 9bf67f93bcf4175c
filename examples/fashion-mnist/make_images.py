#!/usr/bin/python3
"""Writes Fashion-MNIST (Debian's dataset-fashion-mnist) as PNG files in class folders, the layout of torchvision's
ImageFolder: OUT/train/<class>/<n>.png and OUT/test/<class>/<n>.png.

    make_images.py OUT [--train 12000] [--test 2000]
"""
import argparse
import gzip
import pathlib
import struct
import zlib

SOURCE = pathlib.Path("/usr/share/datasets/fashion-mnist")
CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]


def read_idx(name):
    """The payload of an IDX file of bytes and its first dimension."""
    with gzip.open(SOURCE / name) as f:
        data = f.read()
    dimensions = data[3]
    count = struct.unpack(">I", data[4:8])[0]
    return data[4 + 4 * dimensions:], count


def png(pixels, width, height):
    """An 8-bit gray PNG."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + pixels[y * width:(y + 1) * width] for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def write_split(out, prefix, limit):
    images, count = read_idx(f"{prefix}-images-idx3-ubyte.gz")
    labels, _ = read_idx(f"{prefix}-labels-idx1-ubyte.gz")
    for name in CLASSES:
        (out / name).mkdir(parents=True)
    count = min(count, limit)
    for i in range(count):
        (out / CLASSES[labels[i]] / f"{i:05}.png").write_bytes(png(images[784 * i:784 * (i + 1)], 28, 28))
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--train", type=int, default=12000)
    parser.add_argument("--test", type=int, default=2000)
    args = parser.parse_args()
    train = write_split(args.out / "train", "train", args.train)
    test = write_split(args.out / "test", "t10k", args.test)
    print(f"{train + test} images in {args.out}")


if __name__ == "__main__":
    main()
