"""Training files in PaddleClas's vocabulary: read as they are, and every mistake named with its line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.inference.preprocessing import RECOGNITION
from models.nets import NETS
from models.training.config import Amp, Config, ConfigError, LossTerm, Metrics, OptimizerConfig, Sampler, Schedule
from models.training.config_file import load_config
from models.training.config_file.arch import BACKBONES, DETECTORS, HEADS, NECKS
from models.training.data.transforms import Transforms

CONFIGS = Path(__file__).parent.parent.parent / "models" / "configs"
SHIPPED = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
BINARY = "GeneralRecognition/GeneralRecognition_PPLCNet_x2_5_binary.yaml"

# Files as users of PaddleClas have them: every key and every way of writing a value that occurs in its binary
# configurations, with paths and order of their own.
GLOBAL = """\
Global:
  output_dir: ./output
  device: gpu
  epochs: 150
  checkpoints: null
  pretrained_model: null
  save_interval: 15
  eval_mode: retrieval
  eval_during_train: True
  eval_interval: 15
  print_batch_step: 10
  use_visualdl: False
  use_dali: False
  to_static: False

  # for the export
  image_shape: [3, 224, 224]
  save_inference_dir: ./inference
  feature_normalize: False
  feature_binarize: "sign"
"""
CIFAR10 = """\
DataLoader:
  Train:
    dataset:
      name: CustomizedCifar10
      mode: 'train'
    sampler:
      batch_size: 128
      drop_last: False
      shuffle: True
    loader:
      num_workers: 4
      use_shared_memory: True

  Eval:
    Query:
      dataset:
        name: CustomizedCifar10
        mode: 'test'
      sampler:
        batch_size: 128
        drop_last: False
        shuffle: False
      loader:
        num_workers: 4
        use_shared_memory: True

    Gallery:
      dataset:
        name: CustomizedCifar10
        mode: 'train'
      sampler:
        batch_size: 128
        drop_last: False
        shuffle: False
      loader:
        num_workers: 4
        use_shared_memory: True

Metric:
  Eval:
    - mAP: {}
    - Recallk:
        topk: [1, 5]
"""
ADAM = """\
Optimizer:
  name: Adam
  beta1: 0.9
  beta2: 0.999
  lr:
    name: Piecewise
    learning_rate: 0.00001
    decay_epochs: [200]
    values: [0.00001, 0.000001]
"""
DCH = f"""\
{GLOBAL}
Arch:
  name: RecModel
  infer_output_key: features
  infer_add_softmax: False

  Backbone:
    name: AlexNet
    pretrained: True
    class_num: 48

Loss:
  Train:
    - DCHLoss:
        weight: 1.0
        gamma:  20.0
        _lambda: 0.1
        n_class: 10
  Eval:
    - DCHLoss:
        weight: 1.0
        gamma:  20.0
        _lambda: 0.1
        n_class: 10

Optimizer:
  name: SGD
  lr:
    name: Piecewise
    learning_rate: 0.005
    decay_epochs: [200]
    values: [0.005, 0.0005]
  regularizer:
    name: 'L2'
    coeff: 0.00001

{CIFAR10}"""
DSHSD = f"""\
{GLOBAL}
Arch:
  name: RecModel
  infer_output_key:  features
  infer_add_softmax: False
  Backbone:
    name: AlexNet
    pretrained: True
    class_num: 48
  Neck:
    name: Tanh
  Head:
    name: FC
    class_num: 10
    embedding_size: 48
Loss:
  Train:
    - DSHSDLoss:
        weight: 1.0
        alpha:  0.05
  Eval:
    - DSHSDLoss:
        weight: 1.0
        alpha:  0.05
{ADAM}{CIFAR10}"""
LCDSH = f"""\
{GLOBAL}
Arch:
  name: RecModel
  infer_output_key: features
  infer_add_softmax: False
  Backbone:
    name: AlexNet
    pretrained: True
    class_num: 48
Loss:
  Train:
    - LCDSHLoss:
        weight: 1.0
        _lambda: 3
        n_class: 10
  Eval:
    - LCDSHLoss:
        weight: 1.0
        _lambda: 3
        n_class: 10
{ADAM}{CIFAR10}"""
LISTS = """\
DataLoader:
  Train:
    dataset:
      name: ImageNetDataset
      image_root: ./dataset/all_data
      cls_label_path: ./dataset/all_data/train.txt
      transform_ops:
        - DecodeImage:
            to_rgb: True
            channel_first: False
{resize}        - RandCropImage:
            size: 224
        - RandFlipImage:
            flip_code: 1
        - NormalizeImage:
            scale: 1.0/255.0
            mean: [0.485, 0.456, 0.406]
            std: [0.229, 0.224, 0.225]
            order: ''

    sampler:
      name: DistributedBatchSampler
      batch_size: 256
      drop_last: False
      shuffle: True
    loader:
      num_workers: 4
      use_shared_memory: True

  Eval:
    Query:
      dataset:
        name: {kind}
        image_root: ./dataset/val/
        cls_label_path: ./dataset/val/query.txt
        transform_ops:
          - DecodeImage:
              to_rgb: True
              channel_first: False
          - ResizeImage:
              size: 224
          - NormalizeImage:
              scale: 0.00392157
              mean: [0.485, 0.456, 0.406]
              std: [0.229, 0.224, 0.225]
              order: ''
      sampler:
        name: DistributedBatchSampler
        batch_size: 64
        drop_last: False
        shuffle: False
      loader:
        num_workers: 4
        use_shared_memory: True
    Gallery:
      dataset:
        name: {kind}
        image_root: ./dataset/val/
        cls_label_path: ./dataset/val/gallery.txt
        transform_ops:
          - DecodeImage:
              to_rgb: True
              channel_first: False
          - ResizeImage:
              size: 224
          - NormalizeImage:
              scale: 0.00392157
              mean: [0.485, 0.456, 0.406]
              std: [0.229, 0.224, 0.225]
              order: ''
      sampler:
        name: DistributedBatchSampler
        batch_size: 64
        drop_last: False
        shuffle: False
      loader:
        num_workers: 4
        use_shared_memory: True
"""
PPSHITU = f"""\
{GLOBAL.replace("epochs: 150", "epochs: 100")}
AMP:
  scale_loss: 65536
  use_dynamic_loss_scaling: True
  level: O1
Arch:
  name: RecModel
  infer_output_key: features
  infer_add_softmax: False

  Backbone:
    name: PPLCNet_x2_5_Tanh
    pretrained: True
    use_ssld: True
    class_num: 512
  Head:
    name: FC
    embedding_size: 512
    class_num: 185341
Loss:
  Train:
    - CELoss:
        weight: 1.0
  Eval:
    - CELoss:
        weight: 1.0
Optimizer:
  name: Momentum
  momentum: 0.9
  lr:
    name: Cosine
    learning_rate: 0.04
    warmup_epoch: 5
  regularizer:
    name: 'L2'
    coeff: 0.00001
{LISTS.format(resize="", kind="VeriWild")}
Metric:
  Eval:
    - Recallk:
        topk: [1, 5]
"""
VGG = f"""\
{GLOBAL.replace('"sign"', '"round"')}
Arch:
  name: "RecModel"
  Backbone:
    name: "VGG19Sigmoid"
    pretrained: True
    class_num: 48
  Head:
    name: "FC"
    class_num: 10
    embedding_size: 48

  infer_output_key:  "features"
  infer_add_softmax: "false"
Loss:
  Train:
    - CELoss:
        weight: 1.0
        epsilon: 0.1
  Eval:
    - CELoss:
        weight: 1.0
Optimizer:
  name: Momentum
  momentum: 0.9
  lr:
    name: Piecewise
    learning_rate: 0.01
    decay_epochs: [200]
    values: [0.01, 0.001]
{
    LISTS.format(
        resize='''        - ResizeImage:
            size: 256
''',
        kind="ImageNetDataset",
    )
}
Metric:
  Train:
    - TopkAcc:
        topk: [1, 5]
  Eval:
    - mAP:
    - Precisionk:
        topk: [1, 5]

"""
USERS = {"dch": DCH, "dshsd": DSHSD, "lcdsh": LCDSH, "ppshitu": PPSHITU, "vgg": VGG}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_text(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write_text


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value).splitlines()


def line_of(path: Path, text: str, occurrence: int = 0) -> str:
    lines = [number for number, line in enumerate(path.read_text("utf-8").splitlines(), 1) if text in line]
    return f"{path}:{lines[occurrence]}: "


# --- files as users have them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", USERS)
def test_a_file_of_paddleclas_is_read_as_it_is(name: str, write: Any) -> None:
    path = write(USERS[name])
    config = load_config(path)
    assert config.name == "mine"
    for key in ("Global.use_visualdl", "Global.use_dali", "Global.to_static", "Arch.infer_add_softmax", "Loss.Eval",
                "DataLoader.Train.loader.use_shared_memory"):  # fmt: skip
        (note,) = [note for note in config.notes if key in note]
        assert "has no effect here: " in note
        assert line_of(path, key.rpartition(".")[2]).removesuffix(" ") in note
    # A file that our own emitter has written is another text with the same content.
    again = write(yaml.safe_dump(yaml.safe_load(USERS[name])), "mine.yaml")
    assert {**vars(load_config(again)), "notes": ()} == {**vars(config), "notes": ()}


def test_dch_is_what_the_file_says(write: Any) -> None:
    config = load_config(write(DCH))
    assert config.arch.backbone == {"name": "AlexNet", "class_num": 48}
    assert (config.arch.bits, config.arch.pretrained, config.arch.neck, config.arch.head) == (48, True, None, None)
    assert config.losses == (LossTerm("DCHLoss", 1.0, {"gamma": 20.0, "_lambda": 0.1, "n_class": 10}),)
    (stage,) = config.stages
    assert (stage.epochs, stage.batch_size, stage.first_block) == (150, 128, 0)
    schedule = Schedule("Piecewise", 0.005, decay_epochs=(200,), values=(0.005, 0.0005))
    assert stage.optimizer == OptimizerConfig("SGD", schedule, weight_decay=1e-5)
    assert config.train.sampler == Sampler("DistributedBatchSampler", 128, shuffle=True, drop_last=False)
    assert config.train.datasets == ({"name": "CustomizedCifar10", "mode": "train"},)
    assert config.query is not None
    assert config.gallery is not None
    assert [part.datasets[0]["mode"] for part in (config.query, config.gallery)] == ["test", "train"]
    assert config.metrics == Metrics((1, 5), (), True)
    assert (config.device, config.binarize, config.image_shape) == ("gpu", "sign", (224, 224))
    assert (config.save_interval, config.eval_interval, config.eval_during_train) == (15, 15, True)
    assert (config.output_dir, config.save_inference_dir) == (Path("output"), Path("inference"))
    assert config.class_num == 10


def test_pp_shitu_is_what_the_file_says(write: Any) -> None:
    config = load_config(write(PPSHITU))
    assert config.arch.backbone == {"name": "PPLCNet_x2_5_Tanh", "class_num": 512}
    assert config.arch.use_ssld
    assert config.arch.head == {"name": "FC", "embedding_size": 512, "class_num": 185_341}
    assert config.stages[0].optimizer == OptimizerConfig(
        "Momentum", Schedule("Cosine", 0.04, warmup_epoch=5), momentum=0.9, weight_decay=1e-5
    )
    assert config.amp == Amp("O1", 65536, True)
    assert [name for op in config.train.transform_ops for name in op] == [
        "DecodeImage", "RandCropImage", "RandFlipImage", "NormalizeImage",
    ]  # fmt: skip
    assert config.query is not None
    assert config.query.datasets[0]["name"] == "VeriWild"
    assert config.query.sampler.batch_size == 64
    assert config.metrics == Metrics((1, 5), (), False)


def test_vgg_is_rounded(write: Any) -> None:
    config = load_config(write(VGG))
    assert config.binarize == "round"
    assert config.losses == (LossTerm("CELoss", 1.0, {"epsilon": 0.1}),)
    assert config.metrics == Metrics((), (1, 5), True)
    assert any("Metric.Train" in note for note in config.notes)


def test_cifar10_is_prepared_as_pp_shitu_prepares_pictures(write: Any) -> None:
    config = load_config(write(DCH))
    for loader in (config.train, config.query, config.gallery):
        assert loader is not None
        transforms = Transforms.from_ops(loader.transform_ops)
        assert transforms.preprocessing == RECOGNITION
        assert not transforms.is_random


def test_a_decay_that_is_never_reached_is_noted(write: Any) -> None:
    path = write(DCH)
    (note,) = [note for note in load_config(path).notes if "decay_epochs" in note]
    assert note.startswith(line_of(path, "decay_epochs"))
    assert "epoch 200 is not reached: the training has 150 epochs" in note
    assert not any("decay_epochs" in note for note in load_config(path, ["Global.epochs=201"]).notes)


# --- the shipped files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_read_without_a_note_on_a_key(name: str) -> None:
    config = load_config(CONFIGS / name)
    assert [note for note in config.notes if "has no effect" in note] == []


@pytest.mark.parametrize(
    ("name", "theirs"),
    [(BINARY, PPSHITU), ("DeepHash/DCH.yaml", DCH), ("DeepHash/DSHSD.yaml", DSHSD), ("DeepHash/LCDSH.yaml", LCDSH)],
)
def test_a_shipped_file_trains_what_the_reference_trains(name: str, theirs: str, write: Any) -> None:
    ours, reference = load_config(CONFIGS / name), load_config(write(theirs))
    assert ours.arch == reference.arch
    assert ours.losses == reference.losses
    assert ours.stages == reference.stages
    assert ours.binarize == reference.binarize
    assert ours.train.sampler == reference.train.sampler
    assert Transforms.from_ops(ours.train.transform_ops).size == Transforms.from_ops(reference.train.transform_ops).size
    names = [[key for op in config.train.transform_ops for key in op] for config in (ours, reference)]
    assert names[0] == names[1]
    assert set(reference.metrics.recall_topk) <= set(ours.metrics.recall_topk)


def test_the_starter_trains_as_it_did() -> None:
    config = load_config(CONFIGS / "GeneralRecognition/starter_hasher.yaml")
    upper, whole = config.stages
    assert (upper.name, upper.epochs, upper.batch_size, upper.first_block) == ("upper", 10, 128, 12)
    assert (whole.name, whole.epochs, whole.batch_size, whole.first_block) == ("whole", 1.5, 48, 0)
    common: dict[str, Any] = {"weight_decay": 1e-4, "clip_norm_global": 5.0}
    first, second = Schedule("Cosine", 0.002, warmup_epoch=0.5), Schedule("Cosine", 0.0003, warmup_epoch=0.1)
    assert upper.optimizer == OptimizerConfig("AdamW", first, backbone_lr_mult=0.2, **common)
    assert whole.optimizer == OptimizerConfig("AdamW", second, backbone_lr_mult=0.3, **common)
    assert (config.ema_decay, config.seed, config.image_shape) == (0.998, 7, (256, 256))
    assert config.train.transform_ops[0] == {
        "RandomView": {"size": 224, "strength": 1.0, "backgrounds": "data/starter/backgrounds.txt"}
    }
    assert config.train.sampler == Sampler("DistributedBatchSampler", 128, shuffle=True, drop_last=True)
    assert [source.get("repeat", 1) for source in config.train.datasets] == [4, 1, 1, 1]
    assert config.class_num is None
    assert (config.query, config.eval_during_train) == (None, False)


def test_every_architecture_has_its_place() -> None:
    assert set(BACKBONES) | set(NECKS) | set(HEADS) | set(DETECTORS) == set(NETS)
    assert not set(BACKBONES) & (set(NECKS) | set(HEADS))


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("Global:\n", "Globl:\n", "Globl: is not a key; did you mean Global?"),
        ("  epochs: 150", "  epoch: 150", "Global.epoch: is not a key of Global; did you mean epochs?"),
        ("  Backbone:", "  BackBone:", "Arch.BackBone: is not a key of Arch; did you mean Backbone?"),
        ("AlexNet", "AlexNett", "Arch.Backbone.name: no backbone is called 'AlexNett'; did you mean AlexNet?"),
        ("    class_num:", "    classnum:", "Arch.Backbone.classnum: is not a key of AlexNet; did you mean class_num?"),
        ("    - DCHLoss:", "    - DHCLoss:",
         "Loss.Train.0.DHCLoss: no loss is called 'DHCLoss'; did you mean DCHLoss?"),
        ("_lambda: 0.1", "lambda: 0.1", "Loss.Train.0.DCHLoss.lambda: is not a key of DCHLoss; did you mean _lambda?"),
        ("  name: SGD", "  name: SDG", "Optimizer.name: no optimizer is called 'SDG'; did you mean SGD?"),
        ("name: Piecewise", "name: Picewise",
         "Optimizer.lr.name: no schedule is called 'Picewise'; did you mean Piecewise?"),
        ("    values:", "    value:", "Optimizer.lr.value: is not a key of Piecewise; did you mean values?"),
        ("    coeff:", "    coef:", "Optimizer.regularizer.coef: is not a key of regularizer; did you mean coeff?"),
        ("    sampler:", "    sampeler:",
         "DataLoader.Train.sampeler: is not a key of DataLoader.Train; did you mean sampler?"),
        ("name: CustomizedCifar10", "name: CustomCifar10",
         "DataLoader.Train.dataset.name: no dataset is called 'CustomCifar10'; did you mean CustomizedCifar10?"),
        ("      mode:", "      mod:",
         "DataLoader.Train.dataset.mod: is not a key of CustomizedCifar10; did you mean mode?"),
        ("num_workers", "num_worker", "DataLoader.Train.loader.num_worker: is not a key of DataLoader.Train.loader; "
         "did you mean num_workers?"),
        ("    - Recallk:", "    - Recalk:", "Metric.Eval.1.Recalk: no metric is called Recalk; did you mean Recallk?"),
    ],
)  # fmt: skip
def test_a_misspelt_name_is_found(right: str, wrong: str, message: str, write: Any) -> None:
    assert right in DCH
    path = write(DCH.replace(right, wrong, 1))
    assert line_of(path, wrong.strip("\n")) + message in problems(path)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        ("RandCropImag: {}", "1.RandCropImag: no operator is called RandCropImag; did you mean RandCropImage?"),
        ("RandCropImage: {sise: 224}", "1.RandCropImage.sise: is not a key of RandCropImage; did you mean size?"),
        ("RandCropImage: {size: big}", "1.RandCropImage.size: RandCropImage: size must be"),
        ("RandCropImage", "1: must be one name with its settings below it, not 'RandCropImage'"),
        ("RandFlipImage: {flip_code: 7}", "1.RandFlipImage.flip_code: RandFlipImage: flip_code must be 1, 0 or -1"),
    ],
)  # fmt: skip
def test_a_wrong_operator_is_found(operator: str, message: str, write: Any) -> None:
    path = write(PPSHITU.replace("RandCropImage:\n            size: 224", operator))
    place = f"{line_of(path, operator.partition(':')[0])}DataLoader.Train.dataset.transform_ops."
    assert [line for line in problems(path) if line.startswith(place + message)], problems(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("Global.epochs=many", "must be a number above 0, not 'many'"),
        ("Global.epochs=0", "must be a number above 0, not 0"),
        ("Global.epochs=.inf", "must be a number above 0, not inf"),
        ("Global.eval_interval=0", "must be a whole number of at least 1, not 0"),
        ("Global.save_interval=1.5", "must be a whole number of at least 0, not 1.5"),
        ("Global.eval_during_train=1", "must be true or false, not 1"),
        ("Global.device=npu", "must be one of auto, cpu, gpu, not 'npu'"),
        ("Global.feature_binarize=floor", "must be one of sign, round, not 'floor'"),
        ("Global.image_shape=[1, 224, 224]", "must be [3, height, width] in pixels, not [1, 224, 224]"),
        ("Global.image_shape=224", "must be [3, height, width] in pixels, not 224"),
        ("Global.eval_mode=classification", "'classification' cannot be honoured: binary features are evaluated"),
        ("Global.output_dir=[a]", "must be a path, not ['a']"),
        ("Global.use_gpu=false", "says otherwise than Global.device, gpu"),
        ("Arch.name=DistillationModel", "'DistillationModel' cannot be honoured"),
        ("Arch.Backbone=AlexNet", "must be a map of keys, not 'AlexNet'"),
        ("Arch.Backbone.pretrained=3", "must be true, false, a path or a URL, not 3"),
        ("Arch.Backbone.class_num=500", "500 bits do not fill whole bytes: the length of the code must be a multiple "
         "of 8, such as 496 or 504"),
        ("Arch.Backbone.class_num=5", "such as 8"),
        ("Arch.Backbone.class_num=0", "must be a whole number of at least 1, not 0"),
        ("Arch.Backbone.class_num=-48", "must be a whole number of at least 1, not -48"),
        ("Arch.Backbone.first_block=3", "is not a key of AlexNet"),
        ("Loss.Train=[]", "must name at least one loss"),
        ("Loss.Train=DCHLoss", "must be a list of names with their settings, not 'DCHLoss'"),
        ("Loss.Train.0.DCHLoss.weight=-1", "must be a number of at least 0, not -1"),
        ("Loss.Train.0.DCHLoss.n_class=ten", "must be a whole number of at least 0, not 'ten'"),
        ("Optimizer.lr.values=[0.005]", "has 1 learning rates for 1 decay_epochs; there must be one more"),
        ("Optimizer.lr.values.1=low", "must be a number of at least 0, not 'low'"),
        ("Optimizer.lr.decay_epochs=20", None),
        ("Optimizer.lr=-0.1", "must be a number above 0, not -0.1"),
        ("Optimizer.lr.by_epoch=true", "True cannot be honoured"),
        ("Optimizer.regularizer.name=L1", "no regularizer is called 'L1'"),
        ("Optimizer.regularizer.coeff=-1", "must be a number of at least 0, not -1"),
        ("Optimizer.momentum=0.9", "is not a key of SGD"),
        ("DataLoader.Train.sampler.batch_size=0", "must be a whole number of at least 1, not 0"),
        ("DataLoader.Train.sampler.name=Sampler", "no sampler is called 'Sampler'; did you mean"),
        ("DataLoader.Train.sampler.sample_per_id=4", "is not a key of DistributedBatchSampler"),
        ("DataLoader.Train.dataset.mode=val", "must be one of train, test, not 'val'"),
        ("DataLoader.Train.dataset=[]", "must name at least one source of pictures"),
        ("DataLoader.Train.loader.num_workers=-1", "must be a whole number of at least 0, not -1"),
        ("Metric.Eval.1.Recallk.topk=[1, 0]", "must be a whole number of at least 1, not 0"),
        ("AMP.level=O3", "must be one of O1, O2, not 'O3'"),
        ("EMA.decay=1", "must be a number of at least 0 and below 1, not 1"),
        ("Stages=3", "must be a list of stages, not 3"),
    ],
)  # fmt: skip
def test_an_unusable_value_is_refused(override: str, message: str | None, write: Any) -> None:
    path, key = write(DCH), override.partition("=")[0]
    if message is None:
        load_config(path, [override])
    else:
        found = [line for line in problems(path, override) if message in line]
        assert len(found) == 1, problems(path, override)
        assert found[0].startswith("-o " + key) or f": {key}" in found[0]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("Arch", "Arch: is missing"),
        ("Loss", "Loss: is missing"),
        ("Optimizer", "Optimizer: is missing"),
        ("DataLoader", "DataLoader: is missing"),
        ("DataLoader.Train", "DataLoader.Train: is missing"),
        ("DataLoader.Train.dataset", "DataLoader.Train.dataset: is missing"),
        ("DataLoader.Train.sampler", "DataLoader.Train.sampler: is missing"),
        ("DataLoader.Train.sampler.batch_size", "DataLoader.Train.sampler.batch_size: is missing"),
        ("Arch.Backbone", "Arch.Backbone: is missing"),
        ("Arch.Backbone.name", "Arch.Backbone.name: is missing: which backbone; there are "),
        ("Arch.Backbone.class_num", "Arch.Backbone.class_num: is missing: the number of bits"),
        ("Loss.Train", "Loss.Train: is missing"),
        ("Loss.Train.0.DCHLoss.gamma", "Loss.Train.0.DCHLoss.gamma: is missing"),
        ("Optimizer.name", "Optimizer.name: is missing"),
        ("Optimizer.lr", "Optimizer.lr: is missing"),
        ("Optimizer.lr.values", "Optimizer.lr.values: is missing"),
        ("Global.epochs", "Global.epochs: is missing"),
    ],
)
def test_what_is_needed_is_asked_for(key: str, message: str, write: Any) -> None:
    (found,) = problems(write(DCH), f"{key}=null")
    assert message in found


def test_all_problems_come_together(write: Any) -> None:
    path = write(DCH.replace("epochs: 150", "epoch: 150").replace("0.005, 0.0005", "0.005"))
    found = problems(path, "Arch.Backbone.class_num=500")
    assert len(found) == 4
    assert any("Global.epoch:" in line for line in found)
    assert any("Global.epochs: is missing" in line for line in found)
    assert any(line.startswith("-o Arch.Backbone.class_num: 500") for line in found)
    assert any("Optimizer.lr.values" in line for line in found)


def test_a_file_that_cannot_be_read_is_refused(write: Any, tmp_path: Path) -> None:
    assert problems(tmp_path / "none.yaml") == [f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory"]
    assert problems(write("- a\n- b\n"))[0].endswith("must be a map with Global, Arch, Loss, Optimizer and DataLoader")
    assert "must be a map" in problems(write(""))[0]
    assert "given twice" in problems(write(DCH + "Metric: {}\n"))[0]


# --- parts that have to fit each other ---------------------------------------------------------------------------


def test_the_head_takes_what_the_backbone_gives(write: Any) -> None:
    path = write(DSHSD)
    (found,) = problems(path, "Arch.Backbone.class_num=64")
    assert found.startswith(line_of(path, "embedding_size") + "Arch.Head.embedding_size: is 48, and ")
    assert "Arch.Backbone.class_num" in found
    assert load_config(path, ["Arch.Backbone.class_num=64", "Arch.Head.embedding_size=64"]).arch.bits == 64


def test_a_linear_neck_makes_the_code(write: Any) -> None:
    path = write(DSHSD)
    neck = "Arch.Neck={name: FC, embedding_size: 48, class_num: 32}"
    assert load_config(path, [neck, "Arch.Head.embedding_size=32"]).arch.bits == 32
    assert "Arch.Neck.class_num, which comes before it, is 32" in problems(path, neck)[0]
    odd = neck.replace("32", "36")
    assert "Arch.Neck.class_num: 36 bits do not fill" in problems(path, odd, "Arch.Head.embedding_size=36")[0]


@pytest.mark.parametrize(("text", "loss"), [(PPSHITU, "CELoss"), (DSHSD, "DSHSDLoss")])
def test_losses_of_logits_need_a_head(text: str, loss: str, write: Any) -> None:
    path = write(text)
    (found,) = problems(path, "Arch.Head=null")
    assert found.startswith(line_of(path, f"- {loss}") + f"Loss.Train.0.{loss}: needs logits")


def test_classes_are_counted_alike(write: Any) -> None:
    head = "Arch.Head={name: FC, embedding_size: 48, class_num: 12}"
    path = write(DCH)
    assert f"{line_of(path, 'n_class')}Loss.Train.0.DCHLoss.n_class: is 10, and Arch.Head.class_num is 12" in problems(
        path, head
    )
    auto = load_config(path, [head.replace("12", "auto")])
    assert auto.class_num is None
    assert any("Arch.Head is not trained" in note for note in auto.notes)


def test_a_loss_counts_once(write: Any) -> None:
    twice = "Loss.Train=[DCHLoss: {gamma: 20, _lambda: 0.1, n_class: 10}, DCHLoss: {gamma: 2, _lambda: 1, n_class: 10}]"
    assert "Loss.Train.1.DCHLoss: is there twice" in problems(write(DCH), twice)[0]


def test_a_loss_refuses_what_it_cannot_use(write: Any) -> None:
    (found,) = problems(write(PPSHITU), "Loss.Train.0.CELoss.epsilon=1.5")
    assert "Loss.Train.0.CELoss: epsilon must lie in [0, 1)" in found


def test_distillation_needs_a_teacher(write: Any) -> None:
    distil = "Loss.Train=[SimilarityPreservingLoss: {weight: 2}]"
    path = write(DCH)
    assert (
        "DataLoader.Train.dataset: SimilarityPreservingLoss needs the features of a teacher"
        in problems(path, distil)[0]
    )
    config = load_config(path, [distil, "DataLoader.Train.dataset.teacher=features.npz"])
    assert config.losses == (LossTerm("SimilarityPreservingLoss", 2.0, {}),)


def test_signs_of_a_sigmoid_say_nothing(write: Any) -> None:
    (found,) = problems(write(VGG), "Global.feature_binarize=sign")
    assert found.startswith("-o Global.feature_binarize: VGG19Sigmoid gives numbers from 0 to 1")
    assert load_config(write(VGG), ["Global.feature_binarize=null"]).binarize == "round"


def test_a_pk_sampler_says_how_many_of_each_class(write: Any) -> None:
    path = write(PPSHITU)
    sampler = "DataLoader.Train.sampler={name: PKSampler, batch_size: 64, sample_per_id: 4}"
    assert load_config(path, [sampler]).train.sampler == Sampler("PKSampler", 64, sample_per_id=4)
    assert "64 is not a multiple of sample_per_id, 5" in problems(path, sampler.replace("id: 4", "id: 5"))[0]
    assert "sample_per_id: is missing" in problems(path, sampler.replace(", sample_per_id: 4", ""))[0]


def test_a_warm_up_rises(write: Any) -> None:
    path = write(PPSHITU)
    (found,) = problems(path, "Optimizer.lr.warmup_start_lr=0.04")
    assert "Optimizer.lr.warmup_start_lr: the warm-up must rise to the learning rate, and goes from 0.04 to" in found
    pieces = "Optimizer.lr={name: Piecewise, decay_epochs: [20], values: [0, 0.1], warmup_epoch: 1}"
    assert "warmup_epoch: the warm-up must rise" in problems(path, pieces)[0]
    assert load_config(path, [pieces.replace("[0, ", "[0.2, ")]).stages[0].optimizer.schedule.warmup_epoch == 1


def test_rates_and_decay_epochs_rise_and_match(write: Any) -> None:
    path = write(DCH)
    lr = "Optimizer.lr={name: Piecewise, decay_epochs: [20, 10], values: [0.1, 0.01, 0.001]}"
    assert "-o Optimizer.lr: Optimizer.lr.decay_epochs: must rise, not [20, 10]" in problems(path, lr)
    fine = load_config(path, [lr.replace("[20, 10]", "[10, 20.5]")])
    assert fine.stages[0].optimizer.schedule == Schedule(
        "Piecewise", 0.1, decay_epochs=(10, 20.5), values=(0.1, 0.01, 0.001)
    )


def test_weight_decay_is_said_once(write: Any) -> None:
    path = write(DCH)
    assert "weight_decay says the same" in problems(path, "Optimizer.weight_decay=0.1")[0]
    assert "give it as weight_decay" in problems(path, "Optimizer.name=AdamW")[0]
    adamw = load_config(path, ["Optimizer.name=AdamW", "Optimizer.regularizer=null", "Optimizer.weight_decay=1e-2"])
    assert adamw.stages[0].optimizer.weight_decay == 0.01


# --- what is ours ------------------------------------------------------------------------------------------------


def test_a_stage_lays_its_changes_over_the_optimizer(write: Any) -> None:
    path = write(DCH)
    stages = (
        "Stages=[{epochs: 2}, {name: last, epochs: 0.5, batch_size: 16,"
        " Optimizer: {backbone_lr_mult: 0.1, lr: {values: [0.1, 0.2]}}},"
        " {name: adam, epochs: 1, Optimizer: {name: Adam, lr: {name: Cosine, learning_rate: 0.5}}}]"
    )
    first, last, adam = load_config(path, [stages, "Global.epochs=null"]).stages
    assert (first.name, first.epochs, first.batch_size) == ("stage1", 2, 128)
    assert first.optimizer.schedule.values == (0.005, 0.0005)
    assert (last.name, last.epochs, last.batch_size) == ("last", 0.5, 16)
    assert last.optimizer.schedule == Schedule("Piecewise", 0.1, decay_epochs=(200,), values=(0.1, 0.2))
    assert (last.optimizer.name, last.optimizer.weight_decay, last.optimizer.backbone_lr_mult) == ("SGD", 1e-5, 0.1)
    # Another name starts afresh: nothing of the SGD is left.
    assert adam.optimizer == OptimizerConfig("Adam", Schedule("Cosine", 0.5))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[{epochs: 2, first_block: 3}]", "Stages.0.first_block: AlexNet cannot be frozen below a block"),
        ("[{epochs: 2, learning_rate: 3}]", "Stages.0.learning_rate: is not a key of a stage"),
        ("[{batch_size: 2}]", "Stages.0.epochs: is missing"),
        ("[{epochs: 0}]", "Stages.0.epochs: must be a number above 0, not 0"),
        ("[3, {epochs: 1}]", "Stages.0: must be a map of keys, not 3"),
        ("[{epochs: 1, Optimizer: 3}]", "Stages.0.Optimizer: must be a map of what differs"),
        ("[{epochs: 1, Optimizer: {lr: {valus: [1, 2]}}}]", "Stages.0.Optimizer.lr.valus: is not a key of Piecewise"),
        ("[{name: a, epochs: 1}, {name: a, epochs: 2}]", "Stages.1: two stages are called a"),
    ],
)
def test_a_wrong_stage_is_refused(stages: str, message: str, write: Any) -> None:
    assert [line for line in problems(write(DCH), f"Stages={stages}", "Global.epochs=null") if message in line]


def test_stages_and_epochs_exclude_each_other(write: Any) -> None:
    path = write(DCH)
    assert f"{line_of(path, '  epochs: 150')}Global.epochs: the Stages say" in problems(path, "Stages=[{epochs: 2}]")[0]


def test_several_sources_share_their_operators(write: Any) -> None:
    path = write(PPSHITU)
    sources = (
        "DataLoader.Train.dataset=[{image_root: a, cls_label_path: a.txt, repeat: 3},"
        " {name: VeriWild, image_root: b, teacher: b.npz}]"
    )
    ops = "DataLoader.Train.transform_ops=[RandCropImage: {size: 64}, NormalizeImage: {}]"
    config = load_config(path, [sources, ops])
    assert config.train.datasets == (
        {"name": "ImageNetDataset", "image_root": "a", "cls_label_path": "a.txt", "repeat": 3},
        {"name": "VeriWild", "image_root": "b", "teacher": "b.npz"},
    )
    assert config.train.transform_ops == ({"RandCropImage": {"size": 64}}, {"NormalizeImage": {}})
    assert "DataLoader.Train.transform_ops: is missing" in problems(path, sources)[0]
    assert "dataset.transform_ops says it too" in problems(path, ops)[0]
    inside = sources.replace("a.txt,", "a.txt, transform_ops: [NormalizeImage: {}],")
    assert any("give it once for all sources, beside dataset" in line for line in problems(path, inside, ops))


def test_operators_are_checked_without_their_files() -> None:
    """An export on another machine reads the same file, and has no pictures."""
    config = load_config(CONFIGS / "GeneralRecognition/starter_hasher.yaml", [
        "DataLoader.Train.transform_ops.0.RandomView.backgrounds=/nowhere/list.txt"
    ])  # fmt: skip
    assert config.train.transform_ops[0]["RandomView"]["backgrounds"] == "/nowhere/list.txt"


def test_one_evaluation_set_is_both(write: Any) -> None:
    path = write(PPSHITU)
    config = load_config(path, ["DataLoader.Eval.Gallery=null"])
    assert config.query is not None
    assert config.gallery == config.query
    assert any("each picture is searched among the others" in note for note in config.notes)


def test_without_evaluation_sets_nothing_is_evaluated(write: Any) -> None:
    config = load_config(write(DCH), ["DataLoader.Eval=null"])
    assert (config.query, config.gallery, config.eval_during_train) == (None, None, False)
    assert any("there is no DataLoader.Eval" in note for note in config.notes)


@pytest.mark.parametrize(
    ("overrides", "device"),
    [([], "auto"), (["Global.use_gpu=true"], "gpu"), (["Global.use_gpu=false"], "cpu"), (["Global.device=cpu"], "cpu")],
)
def test_the_device_may_be_said_in_two_ways(overrides: list[str], device: str, write: Any) -> None:
    assert load_config(write(DCH.replace("  device: gpu\n", "")), overrides).device == device


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "'0.0001'"])
def test_numbers_may_be_written_as_people_do(text: str, write: Any) -> None:
    """YAML reads 1e-4 as text."""
    path = write(PPSHITU)
    assert load_config(path, [f"Optimizer.lr.learning_rate={text}"]).stages[0].optimizer.schedule.learning_rate == 1e-4


# --- whatever is written -----------------------------------------------------------------------------------------


def keys(value: object, prefix: str = "") -> Iterator[str]:
    """Every key of a file, those of maps and lists too."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in entries:
        yield f"{prefix}{key}"
        yield from keys(child, f"{prefix}{key}.")


@pytest.mark.parametrize(
    ("name", "junk"),
    [("dshsd", junk) for junk in ("null", "zzz", "{zzz: 1}", "[]")]
    + [("ppshitu", junk) for junk in ("-3", "[zzz]", "true", "''")],
)
def test_junk_anywhere_is_read_or_named(name: str, junk: str, write: Any) -> None:
    path = write(USERS[name])
    for key in keys(yaml.safe_load(USERS[name])):
        lines = outcome(path, f"{key}={junk}")
        if lines is not None:
            assert lines, key
            assert all(line.startswith((f"{path}:", "-o ")) for line in lines), lines
            assert any(key in line or f": {key.rpartition('.')[0]}" in line for line in lines), lines


def outcome(path: Path, override: str) -> list[str] | None:
    """The problems of a file with an override, or None where it is read."""
    try:
        assert isinstance(load_config(path, [override]), Config)
    except ConfigError as error:
        return str(error).splitlines()
    return None
