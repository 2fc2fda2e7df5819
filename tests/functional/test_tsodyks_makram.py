"""Short-term plasticity: the equations in NumPy, the fused loop, and what it is good for."""

import numpy as np
import torch

from snnlib import Layer, TsodyksMakramParameters, scan, stp_step


def test_equals_numpy_on_both_backends():
    spikes = (torch.rand(60, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.2).double().requires_grad_()
    p = TsodyksMakramParameters(tau_f_inv=9.0, tau_d_inv=torch.tensor(4.0).double().requires_grad_(), U=0.3)
    u, x, expected = np.zeros((3, 4)), np.ones((3, 4)), []
    for z in spikes.detach().numpy():
        u = (1 - 0.001 * 9.0) * u + 0.3 * (1 - u) * z
        expected.append(u * x * z)
        x = x + 0.001 * 4.0 * (1 - x) - expected[-1]
    gradients = []
    for backend in ("reference", "cpu"):
        output, state = scan(stp_step, spikes, p=p, backend=backend)
        np.testing.assert_allclose(output.detach().numpy(), np.stack(expected), rtol=1e-12)
        np.testing.assert_allclose(state.x.detach().numpy(), x, rtol=1e-12)
        gradients.append(torch.autograd.grad(output.pow(2).sum() + state.x.sum(), (spikes, p.tau_d_inv)))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_synapse_tires_or_facilitates():
    spikes = torch.zeros(100, 1, 1)
    spikes[::20] = 1.0
    tired, _ = Layer(stp_step)(spikes)
    assert tired[0] > tired[40] > tired[80] > 0
    facilitating, _ = Layer(stp_step, TsodyksMakramParameters(tau_f_inv=1 / 0.75, tau_d_inv=20.0, U=0.1))(
        spikes
    )
    assert 0 < facilitating[0] < facilitating[40] < facilitating[80]
