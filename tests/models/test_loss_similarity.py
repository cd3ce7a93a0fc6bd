"""The distillation of similarities, against its formula in loops."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from models.losses import SimilarityPreservingLoss


def test_similarities_are_compared_within_a_group() -> None:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((6, 8))
    teacher = rng.standard_normal((6, 5))
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
    groups = [0, 0, 1, -1, 1, 0]
    total, pairs = 0.0, 0
    for i in range(6):
        for j in range(6):
            if groups[i] == groups[j] and groups[i] >= 0:
                norms = np.linalg.norm(features[i]) * np.linalg.norm(features[j])
                target = max((float(teacher[i] @ teacher[j]) - 0.375) / 0.625, -0.2)
                total += (float(features[i] @ features[j]) / norms - target) ** 2
                pairs += 1
    value = SimilarityPreservingLoss(low=0.375)(
        {"features": paddle.to_tensor(features.astype(np.float32))},
        paddle.to_tensor(teacher.astype(np.float32)),
        paddle.to_tensor(groups),
    )
    assert float(value) == pytest.approx(total / pairs, rel=1e-5)


def test_no_teacher_costs_nothing() -> None:
    output = {"features": paddle.randn([3, 8])}
    value = SimilarityPreservingLoss()(output, paddle.zeros([3, 0]), paddle.to_tensor([-1, -1, -1]))
    assert float(value) == 0.0
