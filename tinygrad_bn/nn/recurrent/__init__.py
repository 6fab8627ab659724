"""Recurrent layers and cells: plain ones, and normalised ones."""

from tinygrad_bn.nn.recurrent.batch_normalized import BatchNormGRU as BatchNormGRU
from tinygrad_bn.nn.recurrent.batch_normalized import BatchNormLSTM as BatchNormLSTM
from tinygrad_bn.nn.recurrent.batch_normalized import BatchNormRNN as BatchNormRNN
from tinygrad_bn.nn.recurrent.cells import GRUCell as GRUCell
from tinygrad_bn.nn.recurrent.cells import LSTMCell as LSTMCell
from tinygrad_bn.nn.recurrent.cells import RNNCell as RNNCell
from tinygrad_bn.nn.recurrent.layer_normalized import LayerNormGRU as LayerNormGRU
from tinygrad_bn.nn.recurrent.layer_normalized import LayerNormLSTM as LayerNormLSTM
from tinygrad_bn.nn.recurrent.layer_normalized import LayerNormRNN as LayerNormRNN
from tinygrad_bn.nn.recurrent.layers import GRU as GRU
from tinygrad_bn.nn.recurrent.layers import LSTM as LSTM
from tinygrad_bn.nn.recurrent.layers import RNN as RNN
