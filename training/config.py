"""The recipe: all settings of a training run, as frozen dataclasses read from one YAML file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from fastbts import MODALITIES, FastBTSError
from fastbts.engine.file import MAX_CHANNELS
from fastbts.labels import REGION_LABELS
from fastbts.spec import MIN_STRIDES, NAME
from training.clip.encoder import ClipSource
from training.model import NORMS, UNetConfig

RECIPES = Path(__file__).parent / "recipes"
PRECISIONS = ("bf16-mixed", "16-mixed", "32-true")
SOURCES = ("cases", "heads")
ENDLESS = 10**9
"""Steps of a stage without a limit."""


@dataclass(frozen=True)
class StageConfig:
    """A part of training with one crop size."""

    steps: int = 1000
    """Optimiser steps; 0 for no limit, only in the stage before the last."""
    crop: tuple[int, ...] = (112, 128, 112)
    """Crop in voxels, (D, H, W) = (Z, Y, X); multiples of the network's stride."""
    batch: int = 1
    """Crops per step."""

    @property
    def length(self) -> int:
        """Optimiser steps, `ENDLESS` without a limit."""
        return self.steps or ENDLESS


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation. Probabilities are per crop unless stated otherwise."""

    tumour_centred: float = 0.5
    """Chance that the crop is centred on a tumour voxel instead of placed anywhere."""
    et_centred: float = 0.2
    """Chance that it is centred on an enhancing voxel; on a tumour voxel if there is none."""
    low_grade: float = 0.0
    """Chance that the tumour core is repainted as non-enhancing, as in (rare) low-grade gliomas."""
    carve_mix: float = 0.0
    """Chance that another case's tumour is copied into the crop."""
    mirror: tuple[float, ...] = (0.1, 0.1, 0.5)
    """Chance of mirroring along D, H, W; W is left-right, which is natural."""
    affine: float = 0.5
    """Chance of a rotation and scaling."""
    rotate_rad: float = 0.3
    """Largest rotation about each axis, radians."""
    scale: float = 0.15
    """Largest relative change of size."""
    intensity: float = 0.6
    """Chance of a per-modality gain and offset."""
    gain: float = 0.25
    """Largest relative gain."""
    offset: float = 0.25
    """Largest offset, in standard deviations of the normalised image."""
    contrast: float = 0.25
    """Chance of a gamma change between 0.7 and 1.5."""
    noise: float = 0.15
    """Chance of Gaussian noise, standard deviation up to 0.15."""
    smooth: float = 0.1
    """Chance of Gaussian smoothing, sigma 0.5 to 1 voxel."""
    thick_slices: float = 0.05
    """Chance, per modality, of thick slices along one axis."""
    bias_field: float = 0.1
    """Chance, per modality, of a smooth multiplicative field."""


@dataclass(frozen=True)
class HeadConfig:
    """Synthetic heads (`training.data.heads`). Probabilities are per head."""

    real_brain: float = 0.5
    """Chance that it has the brain of a labelled case, if there are cases."""
    tumour: float = 0.6
    """Chance that a brain of a label map has a tumour, if there are shapes."""
    cavity: float = 0.2
    """Chance that the core of such a tumour is a resection cavity."""
    bulge: float = 0.3
    """Chance that such a tumour bulges up to 4 mm out of the brain; the mask contains it."""
    any_contrast: float = 0.5
    """Chance of arbitrary intensities, instead of those near FLAIR, T1, T1ce or T2."""
    rotate_rad: float = 0.3
    """Largest rotation about each axis, radians."""
    scale: float = 0.12
    """Largest relative change of the size, per axis."""
    elastic_mm: float = 4.0
    """Largest deviation of the smooth random displacement."""
    shift_mm: float = 25.0
    """Largest distance of the brain's middle from that of the crop, per axis."""
    thick_slices: float = 0.5
    """Chance of slices of 3 to 7 mm."""
    bias_field: float = 0.7
    """Chance of a smooth multiplicative field."""
    cropped: float = 0.5
    """Chance that the field of view ends near the brain, at its top and at its bottom."""
    stripped: float = 0.05
    """Chance that there is nothing outside the brain."""


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    name: str = "light"
    """Name of the recipe; becomes part of the engine's name."""
    seed: int = 0
    """Seed of the weights and of every crop."""
    modalities: tuple[str, ...] = MODALITIES
    """Images of a case, one to eight: names of files `*_NAME.nii.gz`; the network's inputs."""
    regions: dict[str, tuple[int, ...]] = field(default_factory=lambda: dict(REGION_LABELS))
    """Region -> its labels; the network's outputs, in this order. Regions may overlap."""
    spacing_mm: float = 1.0
    """Isotropic spacing of cases and crops."""
    percentiles: tuple[float, float] = (0.1, 99.9)
    """Intensities are clipped at these percentiles, of the brain or of the whole head."""
    source: str = "cases"
    """What crops are from: "cases", or "heads" for synthetic heads, made while training."""
    heads: HeadConfig = field(default_factory=HeadConfig)
    """How synthetic heads vary."""
    model: UNetConfig = field(default_factory=UNetConfig)
    """The network."""
    stages: tuple[StageConfig, ...] = (StageConfig(),)
    """Run in this order. The learning rate is constant until the last one, then falls to zero."""
    window: tuple[int, ...] = ()
    """(D, H, W) of the windows in which a large image is segmented; empty for the last crop. On the
    CPU fastbts takes other sides with at most as many voxels. With BatchNorm it may be larger than
    the crops: fewer windows overlap."""
    threshold: float = 0.5
    """Probability from which a voxel belongs to a region; `training tune` chooses one for each."""
    turns: dict[str, int] = field(default_factory=dict)
    """Turns per epoch of each case of a group (column `group` of cases.csv); 1 for other groups."""
    synthetic: float = 0.0
    """Share of crops from synthetic cases (`training synthetic`), which must be among the cases."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation."""
    learning_rate: float = 1.5e-3
    """Constant rate between the linear warm-up and the last stage."""
    weight_decay: float = 1e-4
    """AdamW's decoupled decay."""
    warmup_steps: int = 100
    """Length of the warm-up."""
    ema: float = 0.998
    """Decay of the moving average of the weights (EMA), which is exported."""
    side_weight: float = 0.4
    """Loss weight of the first coarser level; each further one has half of the one before."""
    similarity_weight: float = 0.2
    """Loss weight of the similarity map; used only with guidance."""
    bridge_weight: float = 0.1
    """Loss weight of the bridge's cosine to its teacher; used only with a teacher."""
    teacher: ClipSource = field(default_factory=ClipSource)
    """CLIP model that teaches the bridge, and whose patch tokens it reads with `token_width`."""
    slices: int = 12
    """Slices per axis that the teacher sees."""
    prompts: str = ""
    """A file of `training.clip.prompts.save_prompts`; empty for orthonormal vectors."""
    checkpoint_every: int = 100
    """Maximum number of steps between checkpoints."""
    checkpoint_minutes: float = 5.0
    """Maximum number of minutes between checkpoints."""
    validate_every: int = 500
    """Steps between validations, if there are cases of split `val`."""
    precision: str = "bf16-mixed"
    """Lightning's name of the precision of forward and backward pass; weights are float32."""

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.length for stage in self.stages)


class RecipeError(FastBTSError, ValueError):
    """A recipe that cannot be used; the message lists every mistake."""


def load_recipe(source: str | Path) -> Recipe:
    """Reads a recipe: a name (`light`, `smoke`) or a path to a YAML file."""
    path = Path(source) if Path(source).suffix in (".yaml", ".yml") else RECIPES / f"{source}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise RecipeError(f"{path}: no such recipe; known recipes: {known}")
    return parse_recipe(yaml.safe_load(path.read_text()) or {}, str(path))


def parse_recipe(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Builds a recipe from plain values of a YAML file or a checkpoint; reports all mistakes."""
    mistakes: list[str] = []
    recipe: Recipe = _build(Recipe, values, "", mistakes)
    mistakes = mistakes or _recipe_mistakes(recipe)
    if mistakes:
        raise RecipeError(f"{where}: " + "; ".join(mistakes))
    return recipe


def model_config(values: dict[str, Any], where: str) -> UNetConfig:
    """Builds a network's configuration from plain values of an engine's manifest.

    Raises:
        RecipeError: Fields that this version does not know, or of another type.
    """
    mistakes: list[str] = []
    config: UNetConfig = _build(UNetConfig, values, "model.", mistakes)
    if mistakes:
        raise RecipeError(f"{where}: " + "; ".join(mistakes))
    return config


def with_last_stage(recipe: Recipe, step: int, steps: int = 0) -> Recipe:
    """The recipe with its last stage moved to begin at `step`.

    Args:
        recipe: Of a run at constant rate.
        step: Where that run is.
        steps: Length of the last stage; 0 for that of the recipe.

    Raises:
        RecipeError: `step` is in the last stage, or 0.
    """
    *constant, last = recipe.stages
    kept, left = [], step
    for stage in constant:
        kept.append(replace(stage, steps=min(stage.length, left)))
        left -= kept[-1].steps
    if left or not step:
        raise RecipeError(
            f"step {step}: expected a step at constant rate, 1 to {step - left}; "
            "take an earlier checkpoint"
        )
    kept = [stage for stage in kept if stage.steps]
    return replace(recipe, stages=(*kept, replace(last, steps=steps or last.steps)))


def _recipe_mistakes(recipe: Recipe) -> list[str]:
    mistakes = _crop_mistakes(recipe) + _stage_mistakes(recipe.stages) + _task_mistakes(recipe)
    for name, value, known in (
        ("source", recipe.source, SOURCES),
        ("model.norm", recipe.model.norm, NORMS),
        ("precision", recipe.precision, PRECISIONS),
    ):
        if value not in known:
            mistakes.append(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    return mistakes + _teacher_mistakes(recipe)


def _task_mistakes(recipe: Recipe) -> list[str]:
    modalities, regions, model = recipe.modalities, recipe.regions, recipe.model
    mistakes = []
    for field_name, names in (("modalities", modalities), ("regions", tuple(regions))):
        different = 1 <= len(set(names)) == len(names) <= MAX_CHANNELS
        if not different or not all(map(NAME.fullmatch, names)):
            mistakes.append(
                f"{field_name}: {', '.join(names)}: expected 1 to {MAX_CHANNELS} different names "
                "of letters, digits, and inside . + - or spaces"
            )
    if not all(v and min(v) > 0 and max(v) < 256 for v in regions.values()):
        mistakes.append(f"regions: {regions}: expected name: [labels], labels from 1 to 255")
    for name, got, wanted in (
        ("model.n_modalities", model.n_modalities, len(modalities)),
        ("model.n_regions", model.n_regions, len(regions)),
    ):
        if got != wanted:
            mistakes.append(f"{name}: {got}, expected {wanted} as in the recipe")
    low, high = recipe.percentiles if len(recipe.percentiles) == 2 else (1, 0)
    if not 0 <= low < high <= 100 or recipe.spacing_mm <= 0:
        mistakes.append(
            f"percentiles, spacing_mm: {recipe.percentiles}, {recipe.spacing_mm}: expected two "
            "ascending numbers from 0 to 100, and a positive one"
        )
    if not 0 < recipe.threshold < 1:
        mistakes.append(f"threshold: {recipe.threshold}, expected a number between 0 and 1")
    if recipe.augment.low_grade and (modalities, regions) != (MODALITIES, REGION_LABELS):
        mistakes.append(
            "augment.low_grade: needs the modalities and regions of glioma; set it to 0"
        )
    return mistakes


def _crop_mistakes(recipe: Recipe) -> list[str]:
    stride = recipe.model.stride
    sizes = {f"stages.{i}.crop": stage.crop for i, stage in enumerate(recipe.stages)}
    sizes |= {"window": recipe.window} if recipe.window else {}
    least = dict.fromkeys(sizes, stride)
    least |= dict.fromkeys([*sizes][-1:], MIN_STRIDES * stride)  # the last is the engine's window
    return [
        f"{name}: {size} is not 3 multiples of the network's stride {stride}, {least[name]} or more"
        for name, size in sizes.items()
        if len(size) != 3 or any(n < least[name] or n % stride for n in size)
    ]


def _stage_mistakes(stages: tuple[StageConfig, ...]) -> list[str]:
    mistakes = [] if stages else ["stages: expected at least one"]
    for i, stage in enumerate(stages):
        if stage.steps < 0 or (stage.steps == 0 and i != len(stages) - 2):
            mistakes.append(
                f"stages.{i}.steps: {stage.steps}, expected at least 1; "
                "0 (no limit) only in the stage before the last"
            )
    return mistakes


def _teacher_mistakes(recipe: Recipe) -> list[str]:
    semantic, given = recipe.model.semantic, bool(recipe.teacher.model)
    used = semantic.bridge and bool(semantic.teacher_width or semantic.token_width)
    mistakes = [f"teacher: {recipe.teacher.mistake()}"] if recipe.teacher.mistake() else []
    if given != used:
        mistakes.append(
            "teacher: needs model.semantic.bridge with teacher_width or token_width, and these "
            f"need a teacher; got {'one' if given else 'none'}, bridge {semantic.bridge}, "
            f"widths {semantic.teacher_width}, {semantic.token_width}"
        )
    if recipe.slices < 1:
        mistakes.append(f"slices: {recipe.slices}, expected at least 1")
    return mistakes


def _build(kind: type, values: Any, where: str, mistakes: list[str]) -> Any:
    """Turns nested plain values into the dataclass `kind`, collecting mistakes."""
    if not isinstance(values, dict):
        mistakes.append(
            f"{where.rstrip('.') or 'recipe'}: expected a mapping, got {type(values).__name__}"
        )
        return kind()
    hints, known = get_type_hints(kind), {}
    for name, value in values.items():
        if name not in hints:
            mistakes.append(f"{where}{name}: unknown field; known: {', '.join(hints)}")
        else:
            known[name] = _convert(hints[name], value, f"{where}{name}", mistakes)
    return kind(**known)


def _convert(hint: Any, value: Any, where: str, mistakes: list[str]) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, f"{where}.", mistakes)
    if get_origin(hint) is dict:  # dict[str, X]
        if not isinstance(value, dict):
            mistakes.append(f"{where}: expected a mapping, got {value!r}")
            return {}
        kind = get_args(hint)[1]
        return {str(k): _convert(kind, v, f"{where}.{k}", mistakes) for k, v in value.items()}
    if get_args(hint):  # tuple[X, ...]
        if not isinstance(value, list | tuple):
            mistakes.append(f"{where}: expected a list, got {value!r}")
            return ()
        return tuple(
            _convert(get_args(hint)[0], v, f"{where}.{i}", mistakes) for i, v in enumerate(value)
        )
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        mistakes.append(f"{where}: expected {hint.__name__}, got {value!r}")
    return value
