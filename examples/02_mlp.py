"""An MLP with batch normalization learns to read digits, in the words of PyTorch."""

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.data import datasets
from tinygrad_bn.utils.data import DataLoader

tg.manual_seed(0)
digits = datasets.digits()
loader = DataLoader(digits.train, batch_size=64, shuffle=True, drop_last=True)

model = nn.Sequential(
    nn.Linear(64, 100),
    nn.BatchNorm1d(100),
    nn.ReLU(),
    nn.Linear(100, 100),
    nn.BatchNorm1d(100),
    nn.ReLU(),
    nn.Linear(100, 10),
)
optimizer = tg.optim.AdamW(tg.optim.param_groups(model, weight_decay=1e-2), lr=3e-3)
criterion = nn.CrossEntropyLoss()
images, labels = digits.test.tensors

for epoch in range(5):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
    model.eval()  # from here on by the running statistics
    with tg.no_grad():
        accuracy = (model(images).argmax(dim=1) == labels).float().mean().item()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}, test accuracy {accuracy:.1%}")
