"""DICOM-SEG: a mask as the DICOM object that hospital archives keep beside its image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import uqseg
from uqseg.errors import FileError, UsageError, message_of


def check_installed() -> None:
    """Raise UsageError naming what to install."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise UsageError("--dicom-seg needs highdicom: pip install 'uqseg[segmentation]'") from error


def write_seg(source: Path, file: Path, mask: NDArray[np.bool_]) -> None:
    """Write the mask (Z,H,W) of a DICOM image as a DICOM-SEG. FileError where the image lacks what that needs."""
    import highdicom as hd
    import pydicom
    from pydicom.sr.codedict import codes

    image = pydicom.dcmread(source)
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="lesion",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="uqseg", version=uqseg.__version__, family=codes.DCM.ArtificialIntelligence
        ),
    )
    try:
        seg = hd.seg.Segmentation(
            source_images=[image],
            pixel_array=mask.astype(np.uint8),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[segment],
            series_instance_uid=hd.UID(),
            series_number=int(image.get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="uqseg",
            manufacturer_model_name="uqseg",
            software_versions=uqseg.__version__,
            device_serial_number="0",
            series_description="uqseg, not for clinical use",
            omit_empty_frames=False,
        )
        seg.save_as(file)
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        reason = message_of(error)[:200]
        raise FileError(f"{source}: cannot be given a DICOM-SEG: {reason}; leave out --dicom-seg") from error
