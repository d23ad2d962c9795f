"""Write trained networks as files that other programs run: ONNX, exported programs of torch, ONNX for QGIS."""
