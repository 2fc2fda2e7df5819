"""What a neuron computes: parameters, states and pure functions."""

import torch

from snnlib.functional.correlation import (
    CorrelationSensorParameters,
    CorrelationSensorState,
    correlation_based_update,
    correlation_sensor_step,
)
from snnlib.functional.decode import (
    last_decode,
    max_decode,
    mean_decode,
    spike_count_decode,
    spike_index_decode,
    spike_time_decode,
    sum_decode,
)
from snnlib.functional.encode import (
    constant_current_lif_encode,
    euclidean_distance,
    gaussian_rbf,
    poisson_encode,
    poisson_encode_step,
    population_encode,
    signed_poisson_encode,
    signed_poisson_encode_step,
    spike_latency_encode,
    spike_latency_lif_encode,
)
from snnlib.functional.iaf import (
    IAFFeedForwardState,
    IAFParameters,
    IAFState,
    iaf_feed_forward_step,
    iaf_step,
)
from snnlib.functional.izhikevich import (
    IZHIKEVICH_BEHAVIORS,
    IzhikevichParameters,
    IzhikevichRecurrentState,
    IzhikevichState,
    izhikevich_feed_forward_step,
    izhikevich_recurrent_step,
)
from snnlib.functional.li import LIParameters, LIState, li_feed_forward_step, li_step
from snnlib.functional.li_box import (
    LIBoxParameters,
    LIBoxState,
    li_box_feed_forward_step,
    li_box_step,
)
from snnlib.functional.lif import (
    LIFFeedForwardState,
    LIFParameters,
    LIFState,
    lif_current_encoder,
    lif_feed_forward_step,
    lif_step,
)
from snnlib.functional.lif_adex import (
    LIFAdExFeedForwardState,
    LIFAdExParameters,
    LIFAdExState,
    lif_adex_current_encoder,
    lif_adex_feed_forward_step,
    lif_adex_step,
)
from snnlib.functional.lif_box import (
    LIFBoxFeedForwardState,
    LIFBoxParameters,
    LIFBoxState,
    lif_box_feed_forward_step,
    lif_box_step,
)
from snnlib.functional.lif_ex import (
    LIFExFeedForwardState,
    LIFExParameters,
    LIFExState,
    lif_ex_current_encoder,
    lif_ex_feed_forward_step,
    lif_ex_step,
)
from snnlib.functional.lif_refrac import (
    LIFRefracFeedForwardState,
    LIFRefracParameters,
    LIFRefracState,
    lif_refrac_feed_forward_step,
    lif_refrac_step,
)
from snnlib.functional.lift import (
    lift,
)
from snnlib.functional.lsnn import (
    LSNNFeedForwardState,
    LSNNParameters,
    LSNNState,
    lsnn_feed_forward_step,
    lsnn_step,
)
from snnlib.functional.regularization import (
    Accumulator,
    regularize_step,
    spike_accumulator,
    voltage_accumulator,
)
from snnlib.functional.stdp import STDPParameters, STDPState, stdp_step_linear
from snnlib.functional.surrogates import (
    circ_dist_fn,
    heavi_circ_fn,
    heavi_erfc_fn,
    heavi_tanh_fn,
    heaviside,
    logistic_fn,
    super_fn,
    triangle_fn,
)
from snnlib.functional.threshold import METHODS, SURROGATES, Method, Surrogate, gate, reset, spike, threshold
from snnlib.functional.tsodyks_makram import (
    TsodyksMakramParameters,
    TsodyksMakramState,
    stp_step,
)

__all__ = [
    "IZHIKEVICH_BEHAVIORS",
    "METHODS",
    "SURROGATES",
    "Accumulator",
    "CorrelationSensorParameters",
    "CorrelationSensorState",
    "IAFFeedForwardState",
    "IAFParameters",
    "IAFState",
    "IzhikevichParameters",
    "IzhikevichRecurrentState",
    "IzhikevichState",
    "LIBoxParameters",
    "LIBoxState",
    "LIFAdExFeedForwardState",
    "LIFAdExParameters",
    "LIFAdExState",
    "LIFBoxFeedForwardState",
    "LIFBoxParameters",
    "LIFBoxState",
    "LIFExFeedForwardState",
    "LIFExParameters",
    "LIFExState",
    "LIFFeedForwardState",
    "LIFParameters",
    "LIFRefracFeedForwardState",
    "LIFRefracParameters",
    "LIFRefracState",
    "LIFState",
    "LIParameters",
    "LIState",
    "LSNNFeedForwardState",
    "LSNNParameters",
    "LSNNState",
    "Method",
    "STDPParameters",
    "STDPState",
    "Surrogate",
    "TsodyksMakramParameters",
    "TsodyksMakramState",
    "circ_dist_fn",
    "constant_current_lif_encode",
    "correlation_based_update",
    "correlation_sensor_step",
    "euclidean_distance",
    "gate",
    "gaussian_rbf",
    "heavi_circ_fn",
    "heavi_erfc_fn",
    "heavi_tanh_fn",
    "heaviside",
    "iaf_feed_forward_step",
    "iaf_step",
    "izhikevich_feed_forward_step",
    "izhikevich_recurrent_step",
    "last_decode",
    "li_box_feed_forward_step",
    "li_box_step",
    "li_feed_forward_step",
    "li_step",
    "lif_adex_current_encoder",
    "lif_adex_feed_forward_step",
    "lif_adex_step",
    "lif_box_feed_forward_step",
    "lif_box_step",
    "lif_current_encoder",
    "lif_ex_current_encoder",
    "lif_ex_feed_forward_step",
    "lif_ex_step",
    "lif_feed_forward_step",
    "lif_refrac_feed_forward_step",
    "lif_refrac_step",
    "lif_step",
    "lift",
    "logistic_fn",
    "lsnn_feed_forward_step",
    "lsnn_step",
    "max_decode",
    "mean_decode",
    "poisson_encode",
    "poisson_encode_step",
    "population_encode",
    "regularize_step",
    "reset",
    "signed_poisson_encode",
    "signed_poisson_encode_step",
    "spike",
    "spike_accumulator",
    "spike_count_decode",
    "spike_index_decode",
    "spike_latency_encode",
    "spike_latency_lif_encode",
    "spike_time_decode",
    "stdp_step_linear",
    "stp_step",
    "sum_decode",
    "super_fn",
    "threshold",
    "triangle_fn",
    "voltage_accumulator",
]

# states, and the parameters that Lightning's save_hyperparameters writes, may lie beside weights in a file that
# torch.load reads by its default, weights_only=True
_IN_FILES = ("State", "Parameters", "_feed_forward_step")
torch.serialization.add_safe_globals([value for name, value in globals().items() if name.endswith(_IN_FILES)])
