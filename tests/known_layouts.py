"""The layouts of well-known published data sets and of what phones and label tools export, with small pictures.

Each function lays out random pictures as that data set does. Its docstring names the data set.
"""

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet

import layouts
from layouts import (
    NAMES,
    Columns,
    Content,
    Draw,
    Example,
    Files,
    Layout,
    content,
    noise,
    without_parts,
    write,
    written,
)

Make = Callable[[Draw, Path], Layout]
KNOWN: list[Make] = []

PLAIN = (NAMES[0], NAMES[1], ("glass", "paper", "metal", "trash", "plastic"), ("A", "B", "C", "D", "E"))
NUMBERED = (("0", "1", "2", "3", "4"),)
TWO, THREE, VALID = (("train", "test"),), (("train", "validation", "test"),), (("train", "validation"),)
WHOLE: tuple[tuple[str | None, ...], ...] = ((None,),)


def known(make: Make) -> Make:
    KNOWN.append(make)
    return make


def known_layout(draw: Draw, root: Path) -> Layout:
    """One of the known layouts, with some noise."""
    make = draw.pick("data set", KNOWN)
    draw.made["data set"] = make.__name__
    root = root / draw.pick("folder", ("archive", "download (1)", "data"))
    layout = make(draw, root)
    files, _ = noise(draw, Content([], ["a", "b"], (None,), 8, 8, ".png", "L"), {})
    write(root, {name: each for name, each in files.items() if not (root / name).exists()})
    return layout


def some(
    draw: Draw, parts: Sequence[tuple[str | None, ...]], names: Sequence[tuple[str, ...]] = PLAIN, least: int = 2
) -> Content:
    data = replace(content(draw, parts, names, least), spell=str)
    return replace(data, ending=".png") if data.ending == "mixed" else data


def placed(data: Content, where: Callable[[int, Example], str], examples: Iterable[Example] | None = None) -> Files:
    """Each picture at the path that `where` gives it, without its ending."""
    chosen = data.examples if examples is None else examples
    return {f"{where(n, each)}{data.ending_of(each)}": data.bytes_of(each) for n, each in enumerate(chosen, 1)}


def strangers(data: Content, where: str, count: int = 3) -> Files:
    """Pictures that belong to no class."""
    return {f"{where}{n}.png": data.bytes_of_extra(30 + n) for n in range(1, count + 1)}


def of(data: Content, part: str) -> list[Example]:
    return [each for each in data.examples if each.part == part]


def made(root: Path, data: Content, files: Files, **settings: Any) -> Layout:
    write(root, files)
    settings.setdefault("truth", data.examples)
    return Layout(settings.pop("what", root), lossless=data.lossless, **settings)


def relabelled(examples: Iterable[Example], label: Callable[[Example], str]) -> list[Example]:
    return [replace(each, label=label(each)) for each in examples]


FOLDER_OF = {"train": "train", "validation": "val", "test": "test"}


@known
def intel(draw: Draw, root: Path) -> Layout:
    """Intel Image Classification: seg_train/seg_train, seg_test/seg_test, seg_pred/seg_pred without classes."""
    data = some(draw, TWO)
    files = placed(data, lambda n, e: f"seg_{e.part}/seg_{e.part}/{e.label}/{n}")
    return made(root, data, files | strangers(data, "seg_pred/seg_pred/"), said=[("seg_pred", "pred")])


@known
def malaria(draw: Draw, root: Path) -> Layout:
    """Cell Images for Detecting Malaria: the class folders contain a copy of them all."""
    data = some(draw, WHOLE)
    files = placed(data, lambda n, e: f"cell_images/{e.label}/{n}")
    files |= placed(data, lambda n, e: f"cell_images/cell_images/{e.label}/{n}")
    return made(root, data, files, doubtful=True, said=[("cell_images",)])


@known
def chest_xray(draw: Draw, root: Path) -> Layout:
    """Chest X-Ray Images (Pneumonia): train, val, test, and a copy of them in chest_xray/chest_xray."""
    data = some(draw, THREE)
    copy = draw.pick("copy", ("chest_xray/chest_xray", "__MACOSX/chest_xray"))
    files = placed(data, lambda n, e: f"chest_xray/{FOLDER_OF[str(e.part)]}/{e.label}/{n}")
    files |= placed(data, lambda n, e: f"{copy}/{FOLDER_OF[str(e.part)]}/{e.label}/{n}")
    hidden = copy.startswith("__")
    return made(root, data, files, doubtful=not hidden, said=[] if hidden else [("chest_xray",)])


@known
def brain_tumour(draw: Draw, root: Path) -> Layout:
    """Brain MRI Images: yes, no, and brain_tumor_dataset/yes, brain_tumor_dataset/no with the same pictures."""
    data = some(draw, WHOLE, (("yes", "no"),))
    files = placed(data, lambda n, e: f"{e.label}/{n}") | placed(
        data, lambda n, e: f"brain_tumor_dataset/{e.label}/{n}"
    )
    return made(root, data, files, doubtful=True, said=[("brain_tumor_dataset",)])


@known
def cats_and_dogs(draw: Draw, root: Path) -> Layout:
    """Cat and Dog: training_set/training_set/cats, test_set/test_set/cats, with files _DS_Store in them."""
    data = some(draw, TWO, (("cats", "dogs"),))
    word = {"train": "training_set", "test": "test_set"}
    files = placed(data, lambda n, e: f"{word[str(e.part)]}/{word[str(e.part)]}/{e.label}/{e.label[:3]}.{n}")
    files |= {f"{each}/{each}/{label}/_DS_Store": b"\0\0\0\1Bud1" for each in word.values() for label in data.classes}
    return made(root, data, files)


@known
def asl_alphabet(draw: Draw, root: Path) -> Layout:
    """ASL Alphabet: asl_alphabet_train/asl_alphabet_train/A, asl_alphabet_test/asl_alphabet_test/A_test.jpg."""
    data = some(draw, WHOLE, (("A", "B", "space", "nothing", "del"),))
    files = placed(data, lambda n, e: f"asl_alphabet_train/asl_alphabet_train/{e.label}/{e.label}{n}")
    files |= strangers(data, "asl_alphabet_test/asl_alphabet_test/A_test")
    train = [replace(each, part="train") for each in data.examples]
    return made(root, data, files, said=[("asl_alphabet_test",)], also=[train])


@known
def fruits(draw: Draw, root: Path) -> Layout:
    """Fruits-360: fruits-360/Training, fruits-360/Test, and test-multiple_fruits without classes."""
    data = some(draw, TWO, (("Apple Braeburn", "Apple Red 1", "Banana", "Kiwi"),))
    word = {"train": "Training", "test": "Test"}
    top = draw.pick("top", ("fruits-360/", "fruits-360_dataset/fruits-360/"))
    files = placed(data, lambda n, e: f"{top}{word[str(e.part)]}/{e.label}/{n}_100")
    return made(root, data, files | strangers(data, f"{top}test-multiple_fruits/"), said=[("multiple",)], doubtful=True)


@known
def tiny_imagenet(draw: Draw, root: Path) -> Layout:
    """Tiny ImageNet: train/n01443537/images/*.JPEG; val/images and test/images without class folders."""
    data = some(draw, (("train",),), (NAMES[18],))
    files = placed(data, lambda n, e: f"train/{e.label}/images/{e.label}_{n}")
    files |= {f"train/{label}/{label}_boxes.txt": b"a\t0\t0\t8\t8\n" for label in data.classes}
    files |= strangers(data, "val/images/val_") | {"val/val_annotations.txt": b"val_1.png\tn01443537\t0\t0\t8\t8\n"}
    files |= strangers(data, "test/images/test_") | {"wnids.txt": b"", "words.txt": b"n01443537\tgoldfish\n"}
    return made(root, data, files, said=[("val",), ("test",)])


@known
def radiography(draw: Draw, root: Path) -> Layout:
    """COVID-19 Radiography: COVID/images and COVID/masks with files of equal names, and tables of metadata."""
    data = some(draw, WHOLE, (("COVID", "Normal", "Viral Pneumonia"),))
    files = placed(data, lambda n, e: f"{e.label}/images/{e.label}-{n}")
    files |= {name.replace("/images/", "/masks/"): data.bytes_of_extra(40 + n) for n, name in enumerate(list(files))}
    files |= {
        f"{label}.metadata.csv": b"FILE NAME,FORMAT,SIZE,URL\nx-1,PNG,8*8,http://e.org\n" for label in data.classes
    }
    return made(root, data, files, said=[("mask",)])


@known
def ultrasound(draw: Draw, root: Path) -> Layout:
    """Breast Ultrasound Images: benign (1).png beside its mask benign (1)_mask.png."""
    data = some(draw, WHOLE, (("benign", "malignant", "normal"),))
    data.ending = ".png"
    files = placed(data, lambda n, e: f"Dataset_BUSI_with_GT/{e.label}/{e.label} ({n})")
    files |= {f"{name[:-4]}_mask.png": data.bytes_of_extra(40 + n) for n, name in enumerate(list(files))}
    return made(root, data, files, said=[("mask",)])


@known
def plant_village(draw: Draw, root: Path) -> Layout:
    """PlantVillage: the same classes in color/, grayscale/ and segmented/."""
    data = some(draw, WHOLE, (("Apple___scab", "Apple___healthy", "Corn___rust"),))
    files: Files = {}
    for version in ("color", "grayscale", "segmented"):
        files |= placed(data, lambda n, e, top=version: f"plantvillage dataset/{top}/{e.label}/{n}")  # type: ignore[misc]
    return made(root, data, files, truth=[], doubtful=True)


@known
def flowers(draw: Draw, root: Path) -> Layout:
    """TensorFlow's flower_photos: class folders and LICENSE.txt."""
    data = some(draw, WHOLE, (("daisy", "dandelion", "roses", "sunflowers", "tulips"),))
    files = placed(data, lambda n, e: f"flower_photos/{e.label}/{n}_abc{n}")
    return made(root, data, files | {"flower_photos/LICENSE.txt": b"CC-BY\n"})


@known
def stanford_dogs(draw: Draw, root: Path) -> Layout:
    """Stanford Dogs: images/Images/n02085620-Chihuahua, annotations/Annotation/n02085620-Chihuahua/ID."""
    data = some(draw, WHOLE, (("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02085936-Maltese_dog"),))
    files = placed(data, lambda n, e: f"images/Images/{e.label}/{e.label[:9]}_{n}")
    xml = b"<annotation><folder>1</folder></annotation>"
    files |= {
        f"annotations/Annotation/{each.label}/{each.label[:9]}_{n}": xml for n, each in enumerate(data.examples, 1)
    }  # fmt: skip
    return made(root, data, files, doubtful=True)


@known
def caltech(draw: Draw, root: Path) -> Layout:
    """Caltech-101: 101_ObjectCategories with BACKGROUND_Google, Annotations with .mat files."""
    data = some(draw, WHOLE, (("BACKGROUND_Google", "Faces", "Motorbikes", "accordion", "wild_cat"),))
    files = placed(data, lambda n, e: f"caltech-101/101_ObjectCategories/{e.label}/image_{n:04d}")
    return made(
        root, data, files | {f"caltech-101/Annotations/{c}/annotation_0001.mat": b"MATLAB" for c in data.classes}
    )


@known
def birds_cub(draw: Draw, root: Path) -> Layout:
    """CUB-200-2011: class folders, and train_test_split.txt, which is no form that hangtag reads."""
    data = some(draw, WHOLE, (("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird"),))
    files = placed(data, lambda n, e: f"CUB_200_2011/images/{e.label}/{e.label[4:]}_{n:04d}")
    lists = {
        "CUB_200_2011/train_test_split.txt": "".join(f"{n} {n % 2}\n" for n in range(1, len(files) + 1)).encode(),
        "CUB_200_2011/images.txt": "".join(f"{n} {name[20:]}\n" for n, name in enumerate(files, 1)).encode(),
        "CUB_200_2011/classes.txt": "".join(f"{n} {c}\n" for n, c in enumerate(data.classes, 1)).encode(),
    }
    return made(root, data, files | lists, said=[("train_test_split", "split")])


@known
def food(draw: Draw, root: Path) -> Layout:
    """Food-101: images/CLASS, meta/train.txt, meta/test.txt, meta/classes.txt."""
    data = some(draw, WHOLE, (("apple_pie", "baby_back_ribs", "baklava"),))
    files = placed(data, lambda n, e: f"food-101/images/{e.label}/{1000 + n}")
    names = [name[len("food-101/images/") :].rpartition(".")[0] for name in files]
    lists = {f"food-101/meta/{p}.txt": "\n".join(names[k::2]).encode() for k, p in enumerate(("train", "test"))}
    jsons = {
        f"food-101/meta/{p}.json": json.dumps({"apple_pie": names[k::2]}).encode()
        for k, p in enumerate(("train", "test"))
    }
    return made(root, data, files | lists | jsons, said=[("train.txt", "test.txt", "train.json", "meta/", "split")])


@known
def rock_paper_scissors(draw: Draw, root: Path) -> Layout:
    """TensorFlow's Rock Paper Scissors: rps/rps/rock, rps-test-set/rps-test-set/rock, rps-validation/*.png."""
    data = some(draw, TWO, (("rock", "paper", "scissors"),))
    word = {"train": "rps", "test": "rps-test-set"}
    files = placed(data, lambda n, e: f"{word[str(e.part)]}/{word[str(e.part)]}/{e.label}/{n}")
    return made(root, data, files | strangers(data, "rps-validation/rock"), doubtful=True, said=[("rps-validation",)])


@known
def monkeys(draw: Draw, root: Path) -> Layout:
    """10 Monkey Species: training/training/n0, validation/validation/n0, monkey_labels.txt."""
    data = some(draw, VALID, (("n0", "n1", "n2", "n3"),))
    word = {"train": "training", "validation": "validation"}
    files = placed(data, lambda n, e: f"{word[str(e.part)]}/{word[str(e.part)]}/{e.label}/{e.label}{n:03d}")
    return made(root, data, files | {"monkey_labels.txt": b"Label, Latin Name\nn0, alouatta\n"})


@known
def birds_kaggle(draw: Draw, root: Path) -> Layout:
    """Birds 525: train, valid, test; birds.csv with the column 'data set'; 'images to predict'; a model."""
    data = some(draw, THREE, (("ABBOTTS BABBLER", "ABBOTTS BOOBY", "AFRICAN CROWNED CRANE"),))
    word = {"train": "train", "validation": "valid", "test": "test"}
    files = placed(data, lambda n, e: f"{word[str(e.part)]}/{e.label}/{n:03d}")
    columns: Columns = {
        "class id": [float(data.number(each)) for each in data.examples], "filepaths": list(files),
        "labels": [each.label for each in data.examples], "data set": [word[str(each.part)] for each in data.examples],
        "scientific name": [each.label.lower() for each in data.examples],
    }  # fmt: skip
    files |= {"birds.csv": written(columns, "csv"), "EfficientNetB0-525-(224 X 224)- 98.97.h5": b"\x89HDF"}
    numbers = relabelled(data.examples, lambda e: str(data.number(e)))
    scientific = relabelled(data.examples, lambda e: e.label.lower())
    if draw.chance("predict", 0.5):
        layout = made(root, data, files | strangers(data, "images to predict/"), said=[("predict",)], doubtful=True)
    else:
        layout = made(root, data, files)
    if draw.chance("the table is named", 0.4):
        layout.what, layout.said, layout.also = root / "birds.csv", [], [numbers, scientific]
    return layout


@known
def handwritten(draw: Draw, root: Path) -> Layout:
    """MNIST as JPG: trainingSet/trainingSet/0, testSet/testSet/img_1.jpg, trainingSample/trainingSample/0, archives."""
    data = some(draw, (("train",),), NUMBERED)
    files = placed(data, lambda n, e: f"trainingSet/trainingSet/{e.label}/img_{n}")
    files |= placed(data, lambda n, e: f"trainingSample/trainingSample/{e.label}/img_{n}", data.examples[:4])
    files |= strangers(data, "testSet/testSet/img_") | strangers(data, "testSample/testSample/img_")
    files |= {"trainingSet.tar.gz": b"\x1f\x8b"}
    return made(root, data, files, doubtful=True, said=[("testset",), ("sample",)])


@known
def garbage(draw: Draw, root: Path) -> Layout:
    """Garbage Classification: the folder twice, and lists of training and test pictures as text."""
    data = some(draw, WHOLE)
    files = placed(data, lambda n, e: f"Garbage classification/Garbage classification/{e.label}/{e.label}{n}")
    lists = {f"one-indexed-files-notrash_{p}.txt": b"glass1.jpg 1\n" for p in ("train", "val", "test")}
    return made(root, data, files | lists, said=[("one-indexed", "list", "split")])


@known
def natural_images(draw: Draw, root: Path) -> Layout:
    """Natural Images: data/natural_images/CLASS and natural_images/CLASS."""
    data = some(draw, WHOLE)
    files = placed(data, lambda n, e: f"data/natural_images/{e.label}/{n}") | placed(
        data, lambda n, e: f"natural_images/{e.label}/{n}"
    )
    return made(root, data, files, truth=[], doubtful=True)


@known
def traffic_signs(draw: Draw, root: Path) -> Layout:
    """GTSRB: Train/0/*.png, Test/*.png, Meta/0.png; Train.csv, Test.csv and Meta.csv with ClassId and Path."""
    data = some(draw, TWO, NUMBERED)
    files: Files = {}
    for part, top in (("train", "Train"), ("test", "Test")):
        own = of(data, part)
        folders = {each.code: f"Train/{each.label}" if part == "train" else "Test" for each in own}
        here = placed(data, lambda n, e, folder_of=folders: f"{folder_of[e.code]}/{n:05d}", own)  # type: ignore[misc]
        columns: Columns = {
            "Width": [27 + n % 3 for n in range(len(own))],
            "Height": [26] * len(own),
            "Roi.X1": [5] * len(own),
        }
        columns |= {"ClassId": [int(each.label) for each in own], "Path": list(here)}
        files |= here | {f"{top}.csv": written(columns, "csv")}
    meta = {f"Meta/{label}.png": data.bytes_of_extra(40 + n) for n, label in enumerate(data.classes)}
    rows: Columns = {
        "Path": list(meta),
        "ClassId": list(range(len(meta))),
        "ShapeId": [1] * len(meta),
        "ColorId": [0] * len(meta),
    }
    files |= meta | {"Meta.csv": written(rows, "csv")}
    if draw.chance("one table is named", 0.3):
        layout = made(root, data, files, what=root / "Train.csv", truth=of(data, "train"), doubtful=True)
        layout.also = [data.examples, without_parts(layout.truth)]
        return layout
    return made(root, data, files, doubtful=True)


@known
def skin_lesions(draw: Draw, root: Path) -> Layout:
    """HAM10000: HAM10000_metadata.csv with image_id and dx; pictures in HAM10000_images_part_1 and _2."""
    data = some(draw, WHOLE, (("nv", "mel", "bkl"),), least=3)
    data.ending = ".jpg"
    names = [f"ISIC_{24306 + n:07d}" for n in range(len(data.examples))]
    half = draw.pick("half", ("HAM10000_images_part_{}", "ham10000_images_part_{}"))
    files = {
        f"{half.format(1 + n % 2)}/{name}.jpg": data.bytes_of(e)
        for n, (name, e) in enumerate(zip(names, data.examples, strict=True))
    }
    dice = draw.random("columns")
    columns: Columns = {
        "lesion_id": [f"HAM_{n // 2:07d}" for n in range(len(names))], "image_id": names,
        "dx": [each.label for each in data.examples], "dx_type": [dice.choice(("histo", "follow_up")) for _ in names],
        "age": [dice.choice((40.0, 50.0, 60.0)) for _ in names],
        "sex": [dice.choice(("male", "female")) for _ in names],
        "localization": [dice.choice(("back", "face", "ear")) for _ in names],
    }  # fmt: skip
    files |= {"HAM10000_metadata.csv": written(columns, "csv")}
    if draw.chance("pixel tables", 0.5):
        rows: Columns = {f"pixel{n:04d}": [n % 9] * len(names) for n in range(64)} | {
            "label": [data.number(e) for e in data.examples]
        }
        files["hmnist_8_8_L.csv"] = written(rows, "csv")
    layout = made(root, data, files, what=root / "HAM10000_metadata.csv", doubtful=True)
    if draw.chance("label column named", 0.7):
        layout.options, layout.doubtful = {"label_column": "dx"}, False
    return layout


@known
def skin_lesions_one_hot(draw: Draw, root: Path) -> Layout:
    """ISIC 2019: ISIC_2019_Training_GroundTruth.csv with a column of 0.0 and 1.0 for each class, and metadata."""
    data = some(draw, WHOLE, (("MEL", "NV", "BCC", "AK", "UNK"),))
    names = [f"ISIC_{n:07d}" for n in range(len(data.examples))]
    folder = draw.pick("pictures", ("ISIC_2019_Training_Input", "ISIC_2019_Training_Input/ISIC_2019_Training_Input"))
    data.ending = ".jpg"
    files = {f"{folder}/{name}.jpg": data.bytes_of(e) for name, e in zip(names, data.examples, strict=True)}
    columns: Columns = {"image": names}
    columns |= {label: [float(label == e.label) for e in data.examples] for label in data.classes}
    files["ISIC_2019_Training_GroundTruth.csv"] = written(columns, "csv")
    files["ISIC_2019_Training_Metadata.csv"] = written(
        {
            "image": names,
            "age_approx": [40.0] * len(names),
            "sex": ["male", "female"] * (len(names) // 2) + ["male"] * (len(names) % 2),
        },
        "csv",
    )
    return made(root, data, files, what=root / "ISIC_2019_Training_GroundTruth.csv")


@known
def two_classes_in_a_row(draw: Draw, root: Path) -> Layout:
    """One-hot columns with a row of two classes: no classification."""
    data = some(draw, WHOLE, (("healthy", "rust", "scab"),), least=3)
    names = [f"Train_{n}" for n in range(len(data.examples))]
    files = {
        f"images/{name}{data.ending_of(e)}": data.bytes_of(e) for name, e in zip(names, data.examples, strict=True)
    }
    columns: Columns = {"image_id": names}
    columns |= {label: [int(label == e.label) for e in data.examples] for label in data.classes}
    for label in data.classes[:2]:
        columns[label][0] = 1
    files["train.csv"] = written(columns, "csv")
    said = [("train_0", "row 1", "row 2", "several", "more than one", "two classes")]
    truth = [each for each in data.examples if each is not data.examples[0]]
    return made(root, data, files, what=root / "train.csv", doubtful=True, truth=truth, said=said)


@known
def plant_pathology(draw: Draw, root: Path) -> Layout:
    """Plant Pathology 2020: train.csv with one-hot columns, test.csv without labels, images/, sample_submission.csv."""
    data = some(draw, (("train",),), (("healthy", "multiple_diseases", "rust", "scab"),))
    names = [f"Train_{n}" for n in range(len(data.examples))]
    files = {
        f"images/{name}{data.ending_of(e)}": data.bytes_of(e) for name, e in zip(names, data.examples, strict=True)
    }
    files |= strangers(data, "images/Test_")
    columns: Columns = {"image_id": names}
    columns |= {label: [int(label == e.label) for e in data.examples] for label in data.classes}
    tests = [f"Test_{n}" for n in (1, 2, 3)]
    submission: Columns = {"image_id": tests} | {label: [0.25] * 3 for label in data.classes}
    files |= {
        "train.csv": written(columns, "csv"), "test.csv": written({"image_id": tests}, "csv"),
        "sample_submission.csv": written(submission, "csv"),
    }  # fmt: skip
    return _kaggle(draw, root, data, files)


def _kaggle(draw: Draw, root: Path, data: Content, files: Files, table: str = "train.csv", **settings: Any) -> Layout:
    """The folder of a competition, or its table; the test pictures without labels are left out, and a note says so."""
    also = [*settings.pop("also", []), without_parts(settings.get("truth", data.examples))]
    if draw.chance("the table is named", 0.4):
        return made(root, data, files, what=root / table, also=also, **settings)
    return made(root, data, files, also=also, said=[("test", "not used")], **settings)


@known
def cifar_kaggle(draw: Draw, root: Path) -> Layout:
    """CIFAR-10 at Kaggle: trainLabels.csv with id and label; train/1.png and test/1.png have equal names."""
    data = some(draw, (("train",),))
    data.ending = ".png"
    names = [str(n) for n in range(1, len(data.examples) + 1)]
    files = {f"train/{name}.png": data.bytes_of(e) for name, e in zip(names, data.examples, strict=True)}
    files |= strangers(data, "test/", len(names))
    columns: Columns = {"id": [int(name) for name in names], "label": [each.label for each in data.examples]}
    files["trainLabels.csv"] = written(columns, "csv")
    files["sampleSubmission.csv"] = written({"id": [1, 2, 3], "label": ["cat"] * 3}, "csv")
    return _kaggle(draw, root, data, files, "trainLabels.csv", doubtful=True)


@known
def dog_breeds(draw: Draw, root: Path) -> Layout:
    """Dog Breed Identification: labels.csv with id and breed, train/, test/, a submission of one-hot columns."""
    data = some(draw, (("train",),), (("boston_bull", "dingo", "pekinese", "bluetick"),))
    names = [f"{draw.random(str(n)).getrandbits(128):032x}" for n in range(len(data.examples))]
    files = {f"train/{name}{data.ending_of(e)}": data.bytes_of(e) for name, e in zip(names, data.examples, strict=True)}
    files |= strangers(data, "test/00")
    files["labels.csv"] = written({"id": names, "breed": [each.label for each in data.examples]}, "csv")
    submission: Columns = {"id": ["001", "002", "003"]} | {label: [0.25] * 3 for label in data.classes}
    files["sample_submission.csv"] = written(submission, "csv")
    return _kaggle(draw, root, data, files, "labels.csv")


@known
def blindness(draw: Draw, root: Path) -> Layout:
    """APTOS 2019: train.csv with id_code and diagnosis 0 to 4, train_images/, test.csv, test_images/."""
    data = some(draw, (("train",),), NUMBERED)
    names = [f"{draw.random(str(n)).getrandbits(48):012x}" for n in range(len(data.examples))]
    files = {
        f"train_images/{name}{data.ending_of(e)}": data.bytes_of(e)
        for name, e in zip(names, data.examples, strict=True)
    }
    files |= strangers(data, "test_images/00")
    files["train.csv"] = written({"id_code": names, "diagnosis": [data.number(each) for each in data.examples]}, "csv")
    files["test.csv"] = written({"id_code": ["001", "002", "003"]}, "csv")
    files["sample_submission.csv"] = written({"id_code": ["001", "002", "003"], "diagnosis": [0, 0, 0]}, "csv")
    return _kaggle(draw, root, data, files)


@known
def cassava(draw: Draw, root: Path) -> Layout:
    """Cassava Leaf Disease: train.csv with image_id and label, train_images/, test_images/, a JSON of class names."""
    data = some(draw, (("train",),), NUMBERED)
    files = placed(data, lambda n, e: f"train_images/{1000015 + n}")
    rows: Columns = {
        "image_id": [name.rpartition("/")[2] for name in files],
        "label": [data.number(each) for each in data.examples],
    }
    files |= strangers(data, "test_images/22") | {"train.csv": written(rows, "csv")}
    names = {str(n): f"disease {n}" for n in range(5)}
    files["label_num_to_disease_map.json"] = json.dumps(names).encode()
    files["sample_submission.csv"] = written({"image_id": ["221.png"], "label": [4]}, "csv")
    layout = _kaggle(draw, root, data, files)
    layout.also += [relabelled(one, lambda e: f"disease {e.label}") for one in [layout.truth, *layout.also]]
    return layout


@known
def butterflies(draw: Draw, root: Path) -> Layout:
    """Butterfly Image Classification: Training_set.csv, Testing_set.csv without labels, train/, test/; names differ."""
    data = some(draw, (("train",),), (("SOUTHERN DOGFACE", "ADONIS", "BROWN SIPROETA"),))
    files = placed(data, lambda n, e: f"train/Image_{n}")
    restart = draw.chance("names begin again", 0.6)
    tests = strangers(data, "test/Image_") if restart else strangers(data, "test/Image_9")
    rows: Columns = {"filename": [name[6:] for name in files], "label": [each.label for each in data.examples]}
    files |= tests | {"Training_set.csv": written(rows, "csv")}
    files["Testing_set.csv"] = written({"filename": [name[5:] for name in tests]}, "csv")
    return _kaggle(draw, root, data, files, "Training_set.csv", doubtful=True)


@known
def digits(draw: Draw, root: Path) -> Layout:
    """Digit Recognizer: train.csv with label and pixels, test.csv with pixels alone, sample_submission.csv."""
    data = some(draw, (("train",),), NUMBERED)
    data.height = data.width = 8
    data.ending = ".png"
    rows = np.stack([data.pixels(each).ravel() for each in data.examples])
    columns: Columns = {"label": [data.number(each) for each in data.examples]}
    columns |= {f"pixel{n}": rows[:, n].tolist() for n in range(64)}
    tests = {f"pixel{n}": [0, 9] for n in range(64)}
    files = {"train.csv": written(columns, "csv"), "test.csv": written(tests, "csv")}
    files["sample_submission.csv"] = written({"ImageId": [1, 2], "Label": [0, 0]}, "csv")
    return _kaggle(draw, root, data, files)


@known
def fashion_kaggle(draw: Draw, root: Path) -> Layout:
    """Fashion-MNIST at Kaggle: fashion-mnist_train.csv and _test.csv with pixels; sometimes the IDX files, too."""
    data = some(draw, TWO, NUMBERED)
    data.height = data.width = 8
    data.ending = ".png"
    files: Files = {}
    for part in ("train", "test"):
        rows = np.stack([data.pixels(each).ravel() for each in of(data, part)])
        columns: Columns = {"label": [data.number(each) for each in of(data, part)]}
        columns |= {f"pixel{n + 1}": rows[:, n].tolist() for n in range(64)}
        files[f"fashion-mnist_{part}.csv"] = written(columns, "csv")
    if draw.chance("one table is named", 0.3):
        layout = made(root, data, files, what=root / "fashion-mnist_train.csv", truth=of(data, "train"))
        layout.also = [without_parts(layout.truth), data.examples]
        return layout
    return made(root, data, files)


@known
def faces(draw: Draw, root: Path) -> Layout:
    """FER2013: emotion, pixels as text, Usage with Training, PublicTest and PrivateTest; and icml_face_data.csv."""
    data = some(draw, THREE, NUMBERED)
    data.height = data.width = 8
    data.ending = ".png"
    usage = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
    order = draw.pick(
        "columns", (("emotion", "pixels", "Usage"), ("emotion", " Usage", " pixels"), ("emotion", "Usage", "pixels"))
    )
    values: Columns = {
        "emotion": [data.number(each) for each in data.examples],
        "Usage": [usage[str(each.part)] for each in data.examples],
        "pixels": [" ".join(map(str, data.pixels(each).ravel().tolist())) for each in data.examples],
    }  # fmt: skip
    table = written({name: values[name.strip()] for name in order}, "csv")
    both = [replace(each, part="train" if each.part == "train" else "test") for each in data.examples]
    return made(root, data, {"fer2013.csv": table}, what=root / "fer2013.csv", also=[both])


@known
def land_use(draw: Draw, root: Path) -> Layout:
    """EuroSAT: class folders, and train.csv, validation.csv and test.csv with Filename, Label, ClassName."""
    data = some(draw, THREE, (("AnnualCrop", "Forest", "SeaLake"),))
    top = draw.pick("top", ("", "EuroSAT/"))
    files = placed(data, lambda n, e: f"{top}{e.label}/{e.label}_{n}")
    names = dict(zip((each.code for each in data.examples), list(files), strict=True))
    for part in ("train", "validation", "test"):
        own = of(data, part)
        rows: Columns = {
            "": list(range(len(own))),
            "Filename": [names[each.code].removeprefix(top) for each in own],
        }
        rows |= {"Label": [data.number(each) for each in own], "ClassName": [each.label for each in own]}
        files[f"{top}{part}.csv"] = written(rows, "csv")
    files[f"{top}label_map.json"] = json.dumps({label: n for n, label in enumerate(data.classes)}).encode()
    numbers = relabelled(data.examples, lambda e: str(data.number(e)))
    layout = made(root, data, files, also=[numbers], doubtful=True)
    if draw.chance("folder with tables is named", 0.5):
        layout.what = root / top
    return layout


@known
def roboflow(draw: Draw, root: Path) -> Layout:
    """Roboflow's CSV export: train/_classes.csv, valid/_classes.csv, test/_classes.csv, one column a class."""
    data = some(draw, THREE)
    word = {"train": "train", "validation": "valid", "test": "test"}
    files = placed(data, lambda n, e: f"{word[str(e.part)]}/{n}_png.rf.{n:032x}")
    names = dict(zip((each.code for each in data.examples), list(files), strict=True))
    space = draw.pick("space", (" ", ""))
    for part, folder in word.items():
        own = of(data, part)
        rows: Columns = {"filename": [names[each.code].partition("/")[2] for each in own]}
        rows |= {f"{space}{label}": [f"{space}{int(label == each.label)}" for each in own] for label in data.classes}
        files[f"{folder}/_classes.csv"] = written(rows, "csv")
    files |= {"README.roboflow.txt": b"x", "README.dataset.txt": b"x"}
    return made(root, data, files)


@known
def imagefolder_with_metadata(draw: Draw, root: Path) -> Layout:
    """A hub's ImageFolder: train/metadata.csv or metadata.jsonl with file_name, and the pictures beside it."""
    data = some(draw, (*TWO, *THREE))
    files = placed(data, lambda n, e: f"{e.part}/{n:04d}")
    names = dict(zip((each.code for each in data.examples), list(files), strict=True))
    form = draw.pick("format", ("csv", "jsonl"))
    for part in data.parts:
        own = of(data, str(part))
        rows: Columns = {"file_name": [names[each.code].partition("/")[2] for each in own]}
        rows |= {"label": [each.label for each in own], "text": [f"caption {each.code}" for each in own]}
        files[f"{part}/metadata.{form}"] = written(rows, form)
    return made(root, data, files | {"README.md": b"---\n---\n"})


@known
def metadata_with_paths(draw: Draw, root: Path) -> Layout:
    """One metadata.csv whose paths lead through train/ and test/; no column names the parts."""
    data = some(draw, TWO)
    files = placed(data, lambda n, e: f"{e.part}/{n:04d}")
    rows: Columns = {"file_name": list(files), "label": [each.label for each in data.examples]}
    files["metadata.csv"] = written(rows, "csv")
    what = draw.pick("named", (root, root / "metadata.csv"))
    return made(root, data, files, what=what)


@known
def celebrities(draw: Draw, root: Path) -> Layout:
    """CelebA: list_eval_partition.csv with partition 0, 1, 2 apart from the attributes of -1 and 1."""
    data = some(draw, THREE, (("-1", "1"),), least=3)
    data.ending = ".jpg"
    names = [f"{n:06d}.jpg" for n in range(1, len(data.examples) + 1)]
    files = {
        f"img_align_celeba/img_align_celeba/{name}": data.bytes_of(e)
        for name, e in zip(names, data.examples, strict=True)
    }
    number = {"train": 0, "validation": 1, "test": 2}
    parts = [number[str(each.part)] for each in data.examples]
    files["list_eval_partition.csv"] = written({"image_id": names, "partition": parts}, "csv")
    smiling: Columns = {"image_id": names, "Smiling": [int(each.label) for each in data.examples]}
    joined = draw.chance("joined", 0.5)
    if joined:
        smiling["partition"] = parts
    files["list_attr_celeba.csv"] = written(smiling, "csv")
    layout = made(root, data, files, what=root / "list_attr_celeba.csv", doubtful=True)
    layout.options = {"label_column": "Smiling"}
    if not joined:
        layout.truth, layout.doubtful = without_parts(data.examples), False
    return layout


@known
def pets(draw: Draw, root: Path) -> Layout:
    """Oxford-IIIT Pet: the class is in the file name; a reader asks."""
    data = some(draw, WHOLE, (("Abyssinian", "Bengal", "beagle"),))
    files = placed(data, lambda n, e: f"images/{e.label}_{n}")
    files["annotations/list.txt"] = b"Abyssinian_1 1 1 1\n"
    return made(root, data, files, doubtful=True, said=[("name",)])


@known
def dogs_vs_cats(draw: Draw, root: Path) -> Layout:
    """Dogs vs. Cats: train/cat.0.jpg, test/1.jpg; the class is in the file name."""
    data = some(draw, (("train",),), (("cat", "dog"),))
    files = placed(data, lambda n, e: f"train/{e.label}.{n}") | strangers(data, "test1/")
    return made(root, data, files, doubtful=True, said=[("name",)], also=[without_parts(data.examples)])


@known
def phone_albums(draw: Draw, root: Path) -> Layout:
    """Google Takeout: an album for each class, with JSON beside each photo and metadata.json."""
    data = some(draw, WHOLE, (("Cats", "Trip to Zürich", "Photos from 2023"),))
    files = placed(data, lambda n, e: f"Takeout/Google Photos/{e.label}/IMG_{n}")
    files |= {f"{name}.supplemental-metadata.json": b'{"title": "x"}' for name in list(files)}
    files |= {f"Takeout/Google Photos/{label}/metadata.json": b"{}" for label in data.classes}
    return made(root, data, files | {"Takeout/archive_browser.html": b"<html></html>"})


@known
def phone_roll(draw: Draw, root: Path) -> Layout:
    """A phone's DCIM folder: folders by camera, no classes."""
    data = some(draw, WHOLE, (("100APPLE", "101APPLE"),))
    files = placed(data, lambda n, e: f"DCIM/{e.label}/IMG_{n:04d}")
    files |= {"DCIM/100APPLE/IMG_0001.AAE": b"<plist/>", "DCIM/100APPLE/IMG_0002.MOV": b"\0\0\0\x14ftypqt"}
    return made(root, data, files)


@known
def teachable_machine(draw: Draw, root: Path) -> Layout:
    """Teachable Machine: a zip of samples of each class in a folder; archives are named as skipped."""
    data = some(draw, WHOLE, (("Class 1", "Class 2", "Class 10"),))
    files: Files = {}
    for label in data.classes:
        own = [each for each in data.examples if each.label == label]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as packed:
            for n, each in enumerate(own):
                packed.writestr(f"{n}.{data.ending_of(each).lstrip('.')}", data.bytes_of(each))
        files[f"{label}-samples.zip"] = buffer.getvalue()
    return made(root, data, files, doubtful=True, said=[("zip", "archive")])


@known
def fastai(draw: Draw, root: Path) -> Layout:
    """fastai's samples: labels.csv with name and label beside train/3 and valid/7."""
    data = some(draw, VALID, (("3", "7"),))
    word = {"train": "train", "validation": "valid"}
    files = placed(data, lambda n, e: f"{word[str(e.part)]}/{e.label}/{n}")
    rows: Columns = {"name": list(files), "label": [data.number(each) for each in data.examples]}
    files["labels.csv"] = written(rows, "csv")
    layout = made(root, data, files)
    layout.also = [relabelled(data.examples, lambda e: str(data.number(e)))]
    return layout


@known
def noisy_labels(draw: Draw, root: Path) -> Layout:
    """Imagewoof: noisy_imagewoof.csv with path, noisy_labels_0, noisy_labels_5 and is_valid beside train and val."""
    data = some(draw, VALID, (NAMES[18],), least=3)
    files = placed(data, lambda n, e: f"{FOLDER_OF[str(e.part)]}/{e.label}/{n}")
    rows: Columns = {"path": list(files), "noisy_labels_0": [each.label for each in data.examples]}
    rows["noisy_labels_5"] = [data.classes[0], *rows["noisy_labels_0"][1:]]
    rows["is_valid"] = [each.part != "train" for each in data.examples]
    files["noisy_imagewoof.csv"] = written(rows, "csv")
    if draw.chance("the table is named", 0.5):
        layout = made(root, data, files, what=root / "noisy_imagewoof.csv", doubtful=True)
        if draw.chance("label column named", 0.6):
            layout.options, layout.doubtful = {"label_column": "noisy_labels_0"}, False
        return layout
    return made(root, data, files)


@known
def boxes(draw: Draw, root: Path) -> Layout:
    """A table of boxes: filename, width, height, class, xmin, ...; a picture has a row for each box."""
    data = some(draw, WHOLE)
    files = placed(data, lambda n, e: f"{n}")
    names = [*files, next(iter(files))]
    rows: Columns = {"filename": names, "width": [8] * len(names), "height": [8] * len(names)}
    rows["class"] = [*(each.label for each in data.examples), data.classes[1]]
    rows |= {side: [n for n, _ in enumerate(names)] for side in ("xmin", "ymin", "xmax", "ymax")}
    files["labels.csv"] = written(rows, "csv")
    said = [("twice", "several", "more than one", "differ", "two labels", "contradict", "repeated", "rows")]
    return made(root, data, files, what=root / "labels.csv", doubtful=True, said=said, also=[data.examples[1:]])


@known
def automl(draw: Draw, root: Path) -> Layout:
    """Google's AutoML: no header; TRAIN, a path in a bucket, the label."""
    data = some(draw, THREE)
    word = {"train": "TRAIN", "validation": "VALIDATION", "test": "TEST"}
    files = placed(data, lambda n, e: f"flowers/{n}")
    rows = [
        f"{word[str(e.part)]},gs://bucket/{name},{e.label}" for name, e in zip(list(files), data.examples, strict=True)
    ]
    files["data.csv"] = "\n".join(rows).encode()
    return made(root, data, files, what=root / "data.csv", doubtful=True)


@known
def meta_tables_of_classes(draw: Draw, root: Path) -> Layout:
    """labels.csv gives numbers, classes.csv the names of the numbers."""
    data = some(draw, WHOLE)
    files = placed(data, lambda n, e: f"images/{n}")
    rows: Columns = {"file": list(files), "label": [data.number(each) for each in data.examples]}
    files["labels.csv"] = written(rows, "csv")
    files["classes.csv"] = written({"id": list(range(len(data.classes))), "name": data.classes}, "csv")
    numbers = relabelled(data.examples, lambda e: str(data.number(e)))
    return made(root, data, files, also=[numbers], what=draw.pick("named", (root / "labels.csv", root)))


@known
def old_labels(draw: Draw, root: Path) -> Layout:
    """Two tables that label the same pictures differently: which one is meant is asked or said."""
    data = some(draw, WHOLE)
    files = placed(data, lambda n, e: f"images/{n}")
    rows: Columns = {"file": list(files), "label": [each.label for each in data.examples]}
    other = draw.pick("other", ("labels_old.csv", "annotations.csv", "labels (1).csv", "noisy.csv"))
    files["labels.csv"] = written(rows, "csv")
    files[other] = written(rows | {"label": [data.classes[0], *rows["label"][1:]]}, "csv")
    return made(root, data, files, doubtful=True, said=[(other.lower(), "tables")])


@known
def table_and_folders_disagree(draw: Draw, root: Path) -> Layout:
    """Class folders beside a table that labels their pictures otherwise."""
    data = some(draw, WHOLE)
    files = placed(data, lambda n, e: f"{e.label}/{n}")
    wrong = [data.classes[(data.number(each) + 1) % len(data.classes)] for each in data.examples]
    stem = draw.pick("table", ("labels", "metadata", "corrected"))
    files[f"{stem}.csv"] = written({"file": list(files), "label": wrong}, "csv")
    return made(root, data, files, doubtful=True, said=[(stem, "table")])


@known
def folders_and_split_table(draw: Draw, root: Path) -> Layout:
    """Class folders beside a table that divides them into parts."""
    data = some(draw, TWO)
    files = placed(data, lambda n, e: f"{e.label}/{n}")
    rows: Columns = {"file": list(files), "split": [each.part for each in data.examples]}
    if draw.chance("labels", 0.5):
        rows["label"] = [each.label for each in data.examples]
    stem = draw.pick("table", ("metadata", "splits", "labels", "train_test"))
    files[f"{stem}.csv"] = written(rows, "csv")
    return made(root, data, files)


@known
def both_datasets(draw: Draw, root: Path) -> Layout:
    """Two data sets in one folder, one divided and one not."""
    data = some(draw, TWO)
    files = placed(data, lambda n, e: f"first/{e.part}/{e.label}/{n}")
    files |= {f"second/{label}/{n}.png": data.bytes_of_extra(30 + n) for n, label in enumerate(data.classes)}
    return made(root, data, files, truth=[], doubtful=True)


@known
def multi_index_frame(draw: Draw, root: Path) -> Layout:
    """A frame read by pandas from a table, with its file names as the index."""
    data = some(draw, TWO)
    files = placed(data, lambda n, e: f"{n}")
    write(root, files)
    frame = pandas.DataFrame({
        "path": list(files), "label": pandas.Categorical([each.label for each in data.examples]),
        "is_test": [each.part == "test" for each in data.examples],
    })  # fmt: skip
    return Layout(frame, data.examples, {"root": root}, lossless=data.lossless)


@known
def masks_in_a_column(draw: Draw, root: Path) -> Layout:
    """A table with the columns image, mask and label."""
    data = some(draw, WHOLE)
    files = placed(data, lambda n, e: f"images/{n}")
    masks = {f"masks/{n}.png": data.bytes_of_extra(30 + n) for n in range(1, len(files) + 1)}
    names = draw.pick(
        "columns", (("image", "mask"), ("image_path", "mask_path"), ("img", "seg"), ("file", "thumbnail"))
    )
    rows: Columns = {names[1]: list(masks), names[0]: list(files), "label": [each.label for each in data.examples]}
    return made(root, data, files | masks | {"labels.csv": written(rows, "csv")}, what=root / "labels.csv")


@known
def names_in_another_case(draw: Draw, root: Path) -> Layout:
    """A table from Windows: IMG_1.JPG for the file img_1.jpg."""
    data = some(draw, WHOLE)
    files = placed(data, lambda n, e: f"img_{n}")
    rows: Columns = {"file": [name.upper() for name in files], "label": [each.label for each in data.examples]}
    return made(root, data, files | {"labels.csv": written(rows, "csv")}, what=root / "labels.csv", doubtful=True)


@known
def names_as_json(draw: Draw, root: Path) -> Layout:
    """labels.json maps each file name to its class."""
    data = some(draw, WHOLE)
    files = placed(data, lambda n, e: f"{n}")
    labels = dict(zip(files, (each.label for each in data.examples), strict=True))
    files["labels.json"] = json.dumps(labels).encode()
    return made(root, data, files, what=draw.pick("named", (root, root / "labels.json")), doubtful=True)


@known
def annotations_of_objects(draw: Draw, root: Path) -> Layout:
    """COCO's instances.json: images, annotations and categories; no classification."""
    data = some(draw, WHOLE)
    files = placed(data, lambda n, e: f"images/{n}")
    listed = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(files)],
        "annotations": [{"image_id": n, "category_id": data.number(e)} for n, e in enumerate(data.examples)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(data.classes)],
    }
    files["instances.json"] = json.dumps(listed).encode()
    return made(root, data, files, what=draw.pick("named", (root, root / "instances.json")), doubtful=True)


@known
def partitioned(draw: Draw, root: Path) -> Layout:
    """Parquet in Hive's folders: split=train/label=cat/0.parquet; the label is in no column."""
    data = some(draw, (*TWO, *WHOLE))
    files: Files = {}
    for part in data.parts:
        for label in data.classes:
            own = [each for each in data.examples if (each.part, each.label) == (part, label)]
            above = f"split={part}/" if part else ""
            if own:
                table = pyarrow.table({"image": [data.bytes_of(each) for each in own], "id": list(range(len(own)))})
                buffer = io.BytesIO()
                pyarrow.parquet.write_table(table, buffer)
                files[f"{above}label={label}/part-0.parquet"] = buffer.getvalue()
    return made(root, data, files, doubtful=True)


@known
def arrays_by_part(draw: Draw, root: Path) -> Layout:
    """train.npz and test.npz with X and y, or train/X.npy, train/y.npy, test/X.npy, test/y.npy."""
    data = some(draw, TWO, NUMBERED)
    as_npy = draw.chance("npy", 0.5)
    root.mkdir(parents=True)
    for part in ("train", "test"):
        images = np.stack([data.pixels(each) for each in of(data, part)])
        labels = np.array([data.number(each) for each in of(data, part)])
        if as_npy:
            (root / part).mkdir()
            np.save(root / part / "X.npy", images)
            np.save(root / part / "y.npy", labels)
        else:
            np.savez(root / f"{part}.npz", X=images, y=labels)
    if draw.chance("one part is named", 0.4):
        layout = Layout(root / ("train/X.npy" if as_npy else "train.npz"), of(data, "train"), doubtful=True)
        layout.also = [without_parts(layout.truth), data.examples]
        return layout
    return Layout(root, data.examples, doubtful=True)


@known
def same_names_in_class_folders(draw: Draw, root: Path) -> Layout:
    """Class folders with files of equal names, and a table that names files without their folders."""
    data = some(draw, TWO)
    numbers = dict.fromkeys(data.classes, 0)
    names = []
    for each in data.examples:
        numbers[each.label] += 1
        names.append(f"{numbers[each.label]}{data.ending_of(each)}")
    files = {f"{each.label}/{name}": data.bytes_of(each) for name, each in zip(names, data.examples, strict=True)}
    rows: Columns = {"file": names, "label": [each.label for each in data.examples]}
    rows["split"] = [each.part for each in data.examples]
    files["labels.csv"] = written(rows, "csv")
    return made(root, data, files, what=draw.pick("named", (root / "labels.csv", root)), doubtful=True)


@known
def more_than_two_tables(draw: Draw, root: Path) -> Layout:
    """train.csv and test.csv, and one more table whose name is no part's."""
    data = some(draw, TWO)
    files = placed(data, lambda n, e: f"images/{n}")
    names = dict(zip((each.code for each in data.examples), list(files), strict=True))
    for part in ("train", "test"):
        own = of(data, part)
        rows: Columns = {"file": [names[each.code] for each in own], "label": [each.label for each in own]}
        files[f"{part}.csv"] = written(rows, "csv")
    more = draw.pick("more", ("extra", "train_extra", "unlabeled", "noisy", "pseudo_labels"))
    files |= strangers(data, "images/more")
    rows = {"file": [f"images/more{n}.png" for n in (1, 2, 3)], "label": [data.classes[0]] * 3}
    files[f"{more}.csv"] = written(rows, "csv")
    return made(root, data, files, doubtful=True, said=[(more, "tables")])


@known
def split_and_folders_disagree(draw: Draw, root: Path) -> Layout:
    """A table's split column and the part folders in its paths contradict each other."""
    data = some(draw, TWO)
    swapped = {"train": "test", "test": "train"}
    files = placed(data, lambda n, e: f"{swapped[str(e.part)] if n == 1 else e.part}/{n}")
    rows: Columns = {"file": list(files), "label": [each.label for each in data.examples]}
    rows["split"] = [each.part for each in data.examples]
    files["labels.csv"] = written(rows, "csv")
    return made(root, data, files, what=root / "labels.csv", doubtful=True, said=[("split", "folder")])


@known
def zeros_in_front(draw: Draw, root: Path) -> Layout:
    """A frame in which pandas read the names 007 as numbers."""
    data = some(draw, WHOLE)
    write(root, placed(data, lambda n, e: f"{n:03d}"))
    frame = pandas.DataFrame({"id": range(1, len(data.examples) + 1), "label": [each.label for each in data.examples]})
    return Layout(frame, data.examples, {"root": root}, lossless=data.lossless, doubtful=True)


@known
def scikit_learn(draw: Draw, root: Path) -> Layout:
    """A mapping as scikit-learn's load_digits returns it: data, target, images, target_names."""
    data = some(draw, WHOLE, NUMBERED)
    data.height = data.width = 8
    images = np.stack([data.pixels(each) for each in data.examples])
    bunch = {
        "data": images.reshape(len(images), -1).astype(float),
        "target": np.array([data.number(e) for e in data.examples]),
        "frame": None, "feature_names": [f"pixel_{n}" for n in range(64)],
        "target_names": np.arange(len(data.classes)),
        "images": images.astype(float), "DESCR": "digits",
    }  # fmt: skip
    return Layout(bunch, data.examples, doubtful=True)


@known
def missing_labels_in_a_frame(draw: Draw, root: Path) -> Layout:
    """Whole numbers with a gap become floats in pandas: 0.0, 1.0, NaN."""
    data = some(draw, WHOLE, NUMBERED, least=3)
    files = placed(data, lambda n, e: f"{n}")
    write(root, files)
    frame = pandas.DataFrame({"file": list(files), "label": [data.number(each) for each in data.examples]})
    frame.loc[0, "label"] = float("nan")
    return Layout(frame, data.examples[1:], {"root": root}, said=[("no label",)], lossless=data.lossless)


@known
def parts_inside_parts(draw: Draw, root: Path) -> Layout:
    """Cross-validation: fold1/train, fold1/test, fold2/train, ... with the same pictures."""
    data = some(draw, TWO)
    files = placed(data, lambda n, e: f"fold1/{e.part}/{e.label}/{n}")
    other = {"train": "test", "test": "train"}
    files |= placed(data, lambda n, e: f"fold2/{other[str(e.part)]}/{e.label}/{n}")
    return made(root, data, files, truth=[], doubtful=True)


@known
def class_folders_with_tables(draw: Draw, root: Path) -> Layout:
    """A table of measurements in each class folder."""
    data = some(draw, (*WHOLE, *TWO))
    files = placed(data, lambda n, e: f"{e.part}/{e.label}/{n}" if e.part else f"{e.label}/{n}")
    for folder in sorted({name.rpartition("/")[0] for name in files}):
        own = [name.rpartition("/")[2] for name in files if name.rpartition("/")[0] == folder]
        rows: Columns = {"file": own, "sharpness": [0.5 + n for n, _ in enumerate(own)]}
        files[f"{folder}/{draw.pick('table', ('metadata', 'measurements', 'index'))}.csv"] = written(rows, "csv")
    return made(root, data, files)


# --- all families ----------------------------------------------------------------------------------------------

FAMILIES: dict[str, tuple[Make, int]] = {
    "folders": (layouts.folders, 24),
    "nested": (layouts.nested, 3),
    "looking alike": (layouts.looking_alike, 4),
    "table": (layouts.table, 22),
    "tables by part": (layouts.tables_by_part, 7),
    "pixel table": (layouts.pixel_table, 4),
    "hub": (layouts.hub, 8),
    "arrays": (layouts.arrays, 8),
    "memory": (layouts.memory, 8),
    "known": (known_layout, 12),
}
"""What makes layouts, each with its share in percent."""


def family_of(seed: str) -> str:
    """The family of a seed, by their shares."""
    names, weights = list(FAMILIES), [weight for _, weight in FAMILIES.values()]
    return random.Random(f"{seed}/family").choices(names, weights)[0]
