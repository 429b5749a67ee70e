"""Figures published by the papers' authors, for comparison; reports label them PUBLISHED."""

SASG_TABLE_2 = {
    "FC MNIST": {"SGD": (60400, 7.87e11), "Sparse": (67400, 8.78e9), "LASG": (33853, 4.41e11), "SASG": (22823, 2.97e9)},
    "ResNet18 CIFAR-10": {
        "SGD": (111200, 3.98e13), "Sparse": (109800, 3.93e11), "LASG": (107389, 3.84e13), "SASG": (90846, 3.25e11),
    },
    "ResNet18 CIFAR-100": {
        "SGD": (152000, 5.46e13), "Sparse": (152800, 5.49e11), "LASG": (145971, 5.24e13), "SASG": (137937, 4.95e11),
    },
}  # fmt: skip
"""By task and method: uploads of single workers until a test accuracy, and bits."""
SASG_TABLE_3 = {"SGD": (327.45, None), "Sparse": (15.94, None), "LASG": (286.72, 426.25), "SASG": (13.09, 4.26)}
"""By method: seconds of communication, and "MB" of stored messages."""

ALPHA_S, BETA_S = 0.436e-3, 3.6e-8
"""α in seconds per message and β in seconds per element of 4 bytes, on 1 Gbit/s Ethernet, by gTop-k's authors."""

THROUGHPUT: dict[str, dict[int, tuple[float, ...]]] = {
    "VGG-16": {1: (1317,), 4: (104, 111, 131), 8: (92.6, 110, 131)},
    "ResNet-20": {1: (921,), 4: (822, 909, 916), 8: (705, 753, 869)},
    "AlexNet": {1: (173,), 4: (14.0, 14.2, 16.5), 8: (12.1, 13.9, 16.4)},
    "ResNet-50": {1: (52.9,), 4: (39.0, 37.7, 39.8), 8: (37.0, 35.7, 39.7)},
    "LSTM-PTB": {1: (392,), 4: (12.7, 19.9, 17.8), 8: (8.7, 18.6, 17.6)},
}
"""Throughput in samples/s per worker at P workers, of S-SGD, Top-k and gTop-k, by gTop-k's authors; three digits."""

THROUGHPUT_OF_MORE: dict[str, dict[int, tuple[float, ...]]] = {
    "VGG-16": {16: (39.5, 97.9, 126), 32: (12.6, 63.0, 123)},
    "ResNet-20": {16: (520, 738, 809), 32: (288, 696, 789)},
    "AlexNet": {16: (4.94, 13.4, 16.4), 32: (1.23, 9.24, 15.8)},
    "ResNet-50": {16: (23.2, 34.5, 39.1), 32: (10.7, 30.6, 39.1)},
    "LSTM-PTB": {16: (4.1, 14.8, 15.1), 32: (2.1, 5.4, 10.8)},
}
"""The same at more workers, from the authors' github.com/hclhkbu/gtopkssgd, commit 6f57343,
``scripts/icdcs2019/communication.py``. Predictions are compared with these figures and never fitted to them; the errors
for four models set the width of the interval for the fifth."""
