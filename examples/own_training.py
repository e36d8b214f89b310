"""Train a pruned model in a loop of your own, and put the weights back into the same ONNX graph."""

from pathlib import Path

import numpy as np
import torch

import onnxprune
from onnxprune.torch import to_module, write_back

MODELS = Path(__file__).resolve().parents[1] / "models"

sample = np.load(MODELS / "fashion_sample.npz")
x, y = torch.tensor(sample["images"])[:, None] / 255, torch.tensor(sample["labels"]).long()

pruned = onnxprune.compress(MODELS / "residual_torchscript.onnx", reduce=0.5, criterion="l2").model
module = to_module(pruned)  # a torch.fx.GraphModule; its parameters have the names of the initializers
optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
torch.manual_seed(0)
for epoch in range(3):
    module.train()
    for batch in torch.randperm(400).split(50):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
        optimizer.step()
    module.eval()
    with torch.no_grad():
        right = (module(x[400:]).argmax(1) == y[400:]).float().mean()
    print(f"epoch {epoch + 1}: {right:.1%} right on samples that were not trained on")

trained = write_back(module, pruned)
trained.save("trained.onnx")
print(onnxprune.prove(MODELS / "residual_torchscript.onnx", trained))  # the removal, whatever was learnt since
