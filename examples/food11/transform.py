#!/usr/bin/python3
"""Sorts the files of Food-11, which are named CLASS_NUMBER.jpg, into a folder a class, as image loaders expect them."""
import os
import shutil
import sys

classes = ["Bread", "Dairy product", "Dessert", "Egg", "Fried food", "Meat", "Noodles/Pasta", "Rice", "Seafood", "Soup",
           "Vegetable/Fruit"]
base = sys.argv[1] if len(sys.argv) > 1 else "Food-11"
for part in ["training", "validation", "evaluation"]:
    folder = os.path.join(base, part)
    if not os.path.isdir(folder):
        sys.exit(f"{folder}: there is no such folder; is this the Food-11 archive?")
    for i in range(len(classes)):
        os.makedirs(os.path.join(folder, f"class_{i:02d}"), exist_ok=True)
    for name in os.listdir(folder):
        number = name.split("_")[0]
        if number.isdigit() and int(number) < len(classes) and os.path.isfile(os.path.join(folder, name)):
            shutil.move(os.path.join(folder, name), os.path.join(folder, f"class_{int(number):02d}", name))
    print(part, sum(len(files) for _, _, files in os.walk(folder)), "files")
