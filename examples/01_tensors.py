"""A tensor and its gradient: compute with numbers, ask for derivatives, go on from there."""

import tinygrad_bn as tg

x = tg.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], requires_grad=True)
w = tg.tensor([0.5, -1.0, 2.0], requires_grad=True)

# Any expression of tensors remembers how it was made.
y = (x @ w).sigmoid()
loss = -y.log().mean()
print("loss     ", loss)

# backward() walks back through it and leaves d loss / d leaf in every leaf's .grad.
loss.backward()
print("d/dw     ", w.grad)

# By hand: with p = sigmoid(x·w), d(-log p)/dw = -(1 - p) x, averaged over the rows.
with tg.no_grad():
    by_hand = (-(1 - y)[:, None] * x).mean(dim=0)
print("by hand  ", by_hand)

# grad() gives derivatives without touching .grad, and of derivatives too.
t = tg.tensor(1.5, requires_grad=True)
derivative = t.sin()
names = ["sin", "cos", "-sin", "-cos", "sin"]
for order, name in enumerate(names):
    print(f"order {order}   {name:>4}(1.5) = {derivative.item():+.6f}")
    (derivative,) = tg.autograd.grad(derivative, t, create_graph=True)

# Arrays come in and go out without a copy, on the CPU.
array = x.detach().numpy()
array[0, 0] = 100.0
print("shared   ", x[0, 0].item() == 100.0)
