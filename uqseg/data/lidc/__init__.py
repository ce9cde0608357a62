"""What the sources of LIDC-IDRI share: the database of outlines, nodules, rasterising, reader slots, DICOM."""
