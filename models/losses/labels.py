"""The labels of a batch: what they may be, and which pairs of pictures they make similar or different."""

from __future__ import annotations

import paddle


def check_classes(label: paddle.Tensor, batch: int, classes: int, origin: str) -> paddle.Tensor:
    """Refuse labels that are no classes.

    Args:
        label: int64 or int32 (B,) or (B, 1): numbers of classes, -1 for a picture without one.
        batch: B.
        classes: how many classes there are.
        origin: what says so, for the message, such as ``n_class``.

    Returns:
        int64 (B,).

    Raises:
        ValueError: the shape or the type is another, or a label lies outside -1..classes - 1.
    """
    if tuple(label.shape) not in {(batch,), (batch, 1)}:
        raise ValueError(
            f"label has shape {list(label.shape)}; for {batch} pictures it must be [{batch}] or [{batch}, 1]"
        )
    if label.dtype not in (paddle.int64, paddle.int32):
        raise ValueError(f"label holds {label.dtype}; numbers of classes must be int64 or int32")
    label = label.reshape([-1]).astype("int64")
    outside = (label < -1) | (label >= classes)
    if bool(outside.any()):
        row = int(outside.astype("int64").argmax())
        raise ValueError(
            f"label {int(label[row])} of picture {row} of the batch is no class: "
            f"{origin} is {classes}, so labels run from 0 to {classes - 1}, and -1 means none"
        )
    return label


def check_multi_hot(label: paddle.Tensor, batch: int, classes: int) -> paddle.Tensor:
    """Refuse what is no multi-hot label.

    Args:
        label: (B, C) of 1 (the picture shows the class), 0 (it does not) or whole rows of -1 (unknown).
        batch: B.
        classes: C.

    Returns:
        float32 (B, C).

    Raises:
        ValueError: the shape is another, or a row has other values.
    """
    if tuple(label.shape) != (batch, classes):
        raise ValueError(
            f"label has shape {list(label.shape)}; for {batch} pictures and {classes} classes "
            f"multi_label takes [{batch}, {classes}], or numbers of classes as [{batch}] or [{batch}, 1]"
        )
    label = label.astype("float32")
    usable = ((label == 0) | (label == 1)).all(axis=1) | (label == -1).all(axis=1)
    if not bool(usable.all()):
        row = int((~usable).astype("int64").argmax())
        raise ValueError(f"label of picture {row} of the batch is not multi-hot: it must hold 0 and 1, or only -1")
    return label


def class_pairs(label: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Tell which pictures are of one class and which are of two.

    Args:
        label: int64 (B,), -1 for a picture without a class: it takes part in no pair.

    Returns:
        Two float32 (B, B) of 0 and 1: pairs of one class (among them each picture with itself), pairs of two.
    """
    label = label.reshape([-1, 1])
    known = label >= 0
    both, same = known & known.T, label == label.T
    return (both & same).astype("float32"), (both & ~same).astype("float32")


def shared_class_pairs(label: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Tell which pictures share a class and which share none.

    Args:
        label: float32 (B, C), multi-hot; a picture of no class, or of unknown ones, takes part in no pair.

    Returns:
        Two float32 (B, B) of 0 and 1: pairs that share a class, pairs that share none.
    """
    label = label.clip(min=0.0)
    known = label.any(axis=1, keepdim=True)
    shared = label @ label.T > 0
    return shared.astype("float32"), (known & known.T & ~shared).astype("float32")


def check_features(features: paddle.Tensor) -> int:
    """Give B of features float (B, K).

    Raises:
        ValueError: they have another shape, or there are none.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features have shape {list(features.shape)}; they must be [B, bits] with both above 0")
    return int(features.shape[0])
