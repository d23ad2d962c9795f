"""Write trained networks as files that other programs run (ONNX, programs of torch, QGIS), and as folders to share."""
