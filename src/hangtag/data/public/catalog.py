"""The public data sets: their content, where to find them, and the checksums of their files.

`datasets.py` finds and reads them. Every checksum is SHA-256 and published by others: those of MNIST's content in many
places; those of KMNIST and of the archives of EMNIST and CIFAR by TensorFlow Datasets (`url_checksums/`); those of the
files in EMNIST's archive by Connor Olding's script `mnists`, which agrees with TensorFlow Datasets on MNIST; those of
the files in CIFAR's archives by torchvision-ruby.
"""

import math
import string
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "DIGITS",
    "EMNIST_BALANCED",
    "EMNIST_LETTERS",
    "FASHION_MNIST",
    "KMNIST",
    "MNIST",
    "NAMED",
    "Archive",
    "DataFile",
    "NamedSet",
    "Signature",
]


@dataclass(frozen=True)
class DataFile:
    """One file of a data set: its name without .gz and the number of its items.

    Attributes:
        sha256: of its decompressed content; empty if not published.
        packed_sha256: of the .gz file of its authors; empty if that of the content is known.
    """

    name: str
    items: int
    sha256: str = ""
    packed_sha256: str = ""


@dataclass(frozen=True)
class Archive:
    """The one file in which a data set is distributed.

    Attributes:
        folder: comes before the names of the files inside.
        ending: comes after them.
        note: what it holds, for those who download it by hand.
    """

    name: str
    sha256: str
    folder: str
    ending: str = ""
    note: str = "all of EMNIST"


@dataclass(frozen=True)
class Signature:
    """What identifies a data set's files even if some bytes are wrong."""

    mean: float  # of all pixels, 0-255; recognised within 1.5
    first_labels: tuple[bytes, bytes]  # train, test


@dataclass(frozen=True)
class NamedSet:
    """A public data set, with everything needed to find, check and read it.

    Its items are those of the files `images` in their order, the training part first. There are three kinds: IDX
    files of images and of labels; CIFAR's records, each with label bytes and then the red, green and blue pixels
    (`label_bytes`); and no files, for a data set that scikit-learn contains.

    Attributes:
        what: its images in words, completes "these are ...".
        shape: of one image: (height, width) or (height, width, 3).
        train: number of training items; the others are for testing.
        home: the page of its authors.
        fingerprint: of all images and labels (`datasets.fingerprint`); empty if unknown.
        first_label: the number of the first class in the files.
        transposed: whether images are stored column by column.
        label_bytes: number of bytes before each image in files that hold both; the last is the label.
        balanced: whether each part has the same number of images of every class.
    """

    name: str
    title: str
    what: str
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    train: int
    home: str
    images: tuple[DataFile, ...] = ()
    labels: tuple[DataFile, ...] = ()
    fingerprint: str = ""
    mirrors: tuple[str, ...] = ()
    archive: Archive | None = None
    first_label: int = 0
    transposed: bool = False
    label_bytes: int = 0
    balanced: bool = False
    signature: Signature | None = None
    debian_package: str = ""
    debian_folder: Path | None = None

    @property
    def files(self) -> tuple[DataFile, ...]:
        return (*self.images, *self.labels)

    @property
    def items(self) -> int:
        return sum(file.items for file in self.images)

    @property
    def pixels(self) -> int:
        """Bytes of one image."""
        return math.prod(self.shape)

    @property
    def parts(self) -> dict[str, slice]:
        """The slices of training and test items; empty if the authors did not divide the data set."""
        return {"train": slice(0, self.train), "test": slice(self.train, self.items)} if self.files else {}

    @property
    def downloads(self) -> tuple[str, ...]:
        """The names of the files to download."""
        return (self.archive.name,) if self.archive else tuple(f"{file.name}.gz" for file in self.files)


# --- like MNIST -------------------------------------------------------------------------------------------------

FASHION_MNIST = NamedSet(
    name="fashion-mnist",
    title="Fashion-MNIST",
    what="the clothes of Fashion-MNIST",
    class_names=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    shape=(28, 28),
    train=60_000,
    home="https://github.com/zalandoresearch/fashion-mnist",
    images=(
        DataFile("train-images-idx3-ubyte", 60_000, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        DataFile("t10k-images-idx3-ubyte", 10_000, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    ),
    labels=(
        DataFile("train-labels-idx1-ubyte", 60_000, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        DataFile("t10k-labels-idx1-ubyte", 10_000, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    ),
    fingerprint="934f3500fd399dd42ff58ebc4bc3c558c3e497052c8674425a66b408e22fd6d2",
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    balanced=True,
    signature=Signature(
        mean=72.9, first_labels=(bytes([9, 0, 0, 3, 0, 2, 7, 2, 5, 5]), bytes([9, 2, 1, 1, 6, 1, 4, 6, 5, 7]))
    ),
    debian_package="dataset-fashion-mnist",
    debian_folder=Path("/usr/share/datasets/fashion-mnist"),
)  # fmt: skip

MNIST = NamedSet(
    name="mnist",
    title="MNIST",
    what="the handwritten digits of MNIST",
    class_names=tuple(string.digits),
    shape=(28, 28),
    train=60_000,
    home="http://yann.lecun.com/exdb/mnist",
    images=(
        DataFile("train-images-idx3-ubyte", 60_000, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        DataFile("t10k-images-idx3-ubyte", 10_000, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    ),
    labels=(
        DataFile("train-labels-idx1-ubyte", 60_000, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        DataFile("t10k-labels-idx1-ubyte", 10_000, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    signature=Signature(
        mean=33.5, first_labels=(bytes([5, 0, 4, 1, 9, 2, 1, 3, 1, 4]), bytes([7, 2, 1, 0, 4, 1, 4, 9, 5, 9]))
    ),
)

KMNIST = NamedSet(
    name="kmnist",
    title="Kuzushiji-MNIST",
    what="the hiragana of Kuzushiji-MNIST",
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    shape=(28, 28),
    train=60_000,
    home="http://codh.rois.ac.jp/kmnist",
    images=(
        DataFile("train-images-idx3-ubyte", 60_000, "",
                 "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
        DataFile("t10k-images-idx3-ubyte", 10_000, "",
                 "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
    ),
    labels=(
        DataFile("train-labels-idx1-ubyte", 60_000, "",
                 "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
        DataFile("t10k-labels-idx1-ubyte", 10_000, "",
                 "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
    ),
    mirrors=(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    ),
    balanced=True,
)  # fmt: skip

# --- EMNIST -----------------------------------------------------------------------------------------------------

_EMNIST_HOME = "https://www.nist.gov/itl/products-and-services/emnist-dataset"
_EMNIST_MIRRORS = ("https://biometrics.nist.gov/cs_links/EMNIST/",)
_EMNIST_ARCHIVE = Archive(
    "gzip.zip", "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e", folder="gzip/", ending=".gz"
)

EMNIST_LETTERS = NamedSet(
    name="emnist-letters",
    title="EMNIST Letters",
    what="the handwritten letters of EMNIST Letters",
    class_names=tuple(string.ascii_lowercase),  # each with its capital
    shape=(28, 28),
    train=124_800,
    home=_EMNIST_HOME,
    images=(
        DataFile("emnist-letters-train-images-idx3-ubyte", 124_800, "",
                 "6288f418a917e007bf5fddb823a2dc7a5c6a35031401b93292a539cb12bd881f"),
        DataFile("emnist-letters-test-images-idx3-ubyte", 20_800, "",
                 "50f0e93d75b99b463e9760b8345866f22587fa2c2fba472730a5ba09c693412d"),
    ),
    labels=(
        DataFile("emnist-letters-train-labels-idx1-ubyte", 124_800, "",
                 "9759af91ea6bccdf07a6040fd085861f2ec88e37f7c3f5760f6feb57106fbe5c"),
        DataFile("emnist-letters-test-labels-idx1-ubyte", 20_800, "",
                 "924955c31fe7fd809b7303b5c0141282955f4b8390c74cdfd5d80435e0f4b4cb"),
    ),
    mirrors=_EMNIST_MIRRORS,
    archive=_EMNIST_ARCHIVE,
    first_label=1,
    transposed=True,
    balanced=True,
)  # fmt: skip

EMNIST_BALANCED = NamedSet(
    name="emnist-balanced",
    title="EMNIST Balanced",
    what="the handwritten digits and letters of EMNIST Balanced",
    # emnist-balanced-mapping.txt: a small letter only if it looks unlike its capital
    class_names=(*string.digits, *string.ascii_uppercase, *"abdefghnqrt"),
    shape=(28, 28),
    train=112_800,
    home=_EMNIST_HOME,
    images=(
        DataFile("emnist-balanced-train-images-idx3-ubyte", 112_800, "",
                 "74295e75e4e9fa2c102147460ee7eb763653d5132d883a84fb88932bfb8d2db4"),
        DataFile("emnist-balanced-test-images-idx3-ubyte", 18_800, "",
                 "117fc12b015e37ea98bfb2cbba3f77c3782c056cdbd219b87abfc8661d7135db"),
    ),
    labels=(
        DataFile("emnist-balanced-train-labels-idx1-ubyte", 112_800, "",
                 "b46d41e5156a0a8aaaa4d18979fdd1588850fa8571018acffd5d93b325a7d6ed"),
        DataFile("emnist-balanced-test-labels-idx1-ubyte", 18_800, "",
                 "a67cac948379b67270b9a4d0a01c8ec661598accf2f2b1964340b7c83cb175cd"),
    ),
    mirrors=_EMNIST_MIRRORS,
    archive=_EMNIST_ARCHIVE,
    transposed=True,
    balanced=True,
)  # fmt: skip

# --- CIFAR ------------------------------------------------------------------------------------------------------

_CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
_CIFAR_MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
_BINARY = "the binary version: hangtag reads no pickles"

CIFAR10 = NamedSet(
    name="cifar10",
    title="CIFAR-10",
    what="the photographs of CIFAR-10",
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    shape=(32, 32, 3),
    train=50_000,
    home=_CIFAR_HOME,
    images=(
        DataFile("data_batch_1.bin", 10_000, "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
        DataFile("data_batch_2.bin", 10_000, "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
        DataFile("data_batch_3.bin", 10_000, "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
        DataFile("data_batch_4.bin", 10_000, "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
        DataFile("data_batch_5.bin", 10_000, "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
        DataFile("test_batch.bin", 10_000, "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
    ),
    mirrors=_CIFAR_MIRRORS,
    archive=Archive(
        "cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        folder="cifar-10-batches-bin/",
        note=_BINARY,
    ),
    label_bytes=1,
    balanced=True,
)

CIFAR100 = NamedSet(
    name="cifar100",
    title="CIFAR-100",
    what="the photographs of CIFAR-100",
    class_names=(
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
        "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
        "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
        "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
        "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
        "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
        "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
        "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
        "willow_tree", "wolf", "woman", "worm",
    ),
    shape=(32, 32, 3),
    train=50_000,
    home=_CIFAR_HOME,
    images=(
        DataFile("train.bin", 50_000, "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"),
        DataFile("test.bin", 10_000, "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"),
    ),
    mirrors=_CIFAR_MIRRORS,
    archive=Archive(
        "cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        folder="cifar-100-binary/",
        note=_BINARY,
    ),
    label_bytes=2,  # one of 20 groups, then one of 100 classes
    balanced=True,
)  # fmt: skip

# --- with scikit-learn ------------------------------------------------------------------------------------------

DIGITS = NamedSet(
    name="digits",
    title="the digits of scikit-learn",
    what="the digits of scikit-learn",
    class_names=tuple(string.digits),
    shape=(8, 8),
    train=1797,
    home="https://scikit-learn.org",
    fingerprint="283940e697946651005dc2bbcb328cba6f438c66e20ed4a28b8653fb0e785d1f",
)

NAMED = {
    each.name: each
    for each in (FASHION_MNIST, MNIST, KMNIST, EMNIST_LETTERS, EMNIST_BALANCED, CIFAR10, CIFAR100, DIGITS)
}
