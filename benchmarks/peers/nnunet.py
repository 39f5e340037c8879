"""nnU-Net: its own predictor with its default step of half a window, without mirroring."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Kit, Machine, Spec, Stages
from benchmarks.peers.numpy_steps import ED, ET, NCR, zyx

DATASET = {
    "channel_names": {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"},
    "labels": {"background": 0, "WT": (1, 2, 4), "TC": (1, 4), "ET": 4},
    "regions_class_order": (ED, NCR, ET),
    "file_ending": ".nii.gz",
}


def plans(spec: Spec) -> dict[str, Any]:
    """What nnU-Net's planning writes for BraTS, with the window that the network was trained on."""
    resampling = {"order": 1, "order_z": 0, "force_separate_z": None}
    steps = ("data", "seg", "probabilities")
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(spec.window),
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"] * 4,
        "use_mask_for_norm": [True] * 4,
        **{f"resampling_fn_{step}": "resample_data_or_seg_to_shape" for step in steps},
        **{
            f"resampling_fn_{step}_kwargs": {"is_seg": step == "seg", **resampling}
            for step in steps
        },
        "batch_dice": False,
        # Ours is given to the predictor.
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    return {
        "dataset_name": "Dataset001_BraTS",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): {} for n in range(4)},
    }


class NnUnet:
    """`nnUNetPredictor`, in float32 on a CPU as nnU-Net has it.

    Args:
        whole: Only the predictor, over the whole normalised image. Otherwise all that nnU-Net does
            for an array: crop to the non-zero box, z-score, windows, labels, back into the image.
    """

    def __init__(self, whole: bool = False) -> None:
        self._whole = whole
        self.stages_ms: dict[str, float] = {}

    def load(self, kit: Kit, machine: Machine) -> None:
        os.environ |= {"nnUNet_def_n_proc": str(machine.n_threads)}
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        from benchmarks.peers.torch_network import load_network, versions

        self._torch = torch
        network = load_network(kit, machine)
        self._predictor = nnUNetPredictor(
            use_mirroring=False, device=torch.device(machine.device), allow_tqdm=False
        )
        manager = PlansManager(plans(kit.spec))
        self._predictor.manual_initialization(
            network,
            manager,
            manager.get_configuration("3d_fullres"),
            [network.state_dict()],
            DATASET,
            "nnUNetTrainer",
            None,
        )
        where = "z-score, the whole image" if self._whole else "crop, z-score, the box"
        self.about = versions(
            nnunetv2=_version(),
            precision="fp32" if machine.device == "cpu" else "fp16",
            around=f"nnU-Net: {where} in windows of {'x'.join(map(str, kit.spec.window))}, "
            "step 0.5, no mirroring",
        )

    def predict(self, images: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
        view, clock = zyx(images, affine), Stages()
        labels = np.zeros(images.shape[:0:-1], np.uint8).T
        if self._whole:
            found = self._over_whole_image(view, clock)
        else:
            found = self._predictor.predict_single_npy_array(view, {"spacing": [1.0, 1.0, 1.0]})
        zyx(labels, affine)[:] = found
        self.stages_ms = clock.ms
        return labels

    def _over_whole_image(self, view: NDArray[Any], clock: Stages) -> NDArray[Any]:
        with clock("prepare"):
            tensor = np.ascontiguousarray(view, np.float32)
            brain = (tensor != 0).any(axis=0)
            for image in tensor:
                values = image[brain]
                image[brain] = (values - values.mean()) / values.std()
        with clock("network"):
            logits = self._predictor.predict_logits_from_preprocessed_data(
                self._torch.from_numpy(tensor)
            )
        with clock("label"):
            return self._predictor.label_manager.convert_logits_to_segmentation(logits).numpy()


def _version() -> str:
    from importlib.metadata import version

    return version("nnunetv2")
