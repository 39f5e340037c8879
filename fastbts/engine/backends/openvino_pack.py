"""prototype"""
from __future__ import annotations
from typing import Any
import numpy as np

PACK, UNPACK = [0, 1, 3, 5, 7, 2, 4, 6], [0, 1, 5, 2, 6, 3, 7, 4]


def kind(node): return node.get_type_name()

def maker(value): return value.get_node()

def constant(value):
    node = value.get_node()
    return node.get_data() if node.get_type_name() == "Constant" else None

def packed_input(network):
    volume = network.inputs[0]
    for target in volume.get_target_inputs():
        first = target.get_node()
        if kind(first) != "Reshape": continue
        for t in first.output(0).get_target_inputs():
            tr = t.get_node()
            if kind(tr) == "Transpose" and list(constant(tr.input_value(1))) == PACK:
                (last,) = [i.get_node() for i in tr.output(0).get_target_inputs()]
                return last.output(0)
    return None

def fused(packed):
    for t in packed.get_target_inputs():
        n = t.get_node()
        if kind(n) == "Equal":
            (s,) = [i.get_node() for i in n.output(0).get_target_inputs()]
            return s.output(0)
    return packed

def strip(ov, network, etype, out_type=None, patch=2, planar=False):
    from openvino import opset13 as ops
    old = network.get_parameters()[0]
    cut = fused(packed_input(network))
    _, m, *_ = network.inputs[0].partial_shape
    c = m.get_length() * patch**3
    new = ops.parameter([1, c, -1, -1, -1] if planar else [1, -1, -1, -1, c], etype, name="packed")
    new.output(0).set_names({"packed"})
    x = new if planar else ops.transpose(new, [0, 4, 1, 2, 3])
    if etype != ov.Type.f32:
        pass
    cut.replace((ops.convert(x, 'f32') if etype != ov.Type.f32 else x).output(0))
    d = ops.gather(ops.shape_of(new), [2, 3, 4] if planar else [1, 2, 3], 0)
    shape = ops.concat([np.array([1, m.get_length()], np.int64), ops.multiply(d, np.int64(patch))], 0)
    for t in list(old.output(0).get_target_inputs()):
        n = t.get_node()
        if kind(n) == "ShapeOf":
            s = shape if n.get_output_element_type(0) == ov.Type.i64 else ops.convert(shape, n.get_output_element_type(0))
            n.output(0).replace(s.output(0))
    # output
    res = network.get_results()[0]
    last = res.input_value(0).get_node()
    while kind(last) == "Convert": last = last.input_value(0).get_node()
    assert kind(last) == "Reshape", kind(last)
    tr = last.input_value(0).get_node(); assert kind(tr) == "Transpose" and list(constant(tr.input_value(1))) == UNPACK
    first = tr.input_value(0).get_node(); assert kind(first) == "Reshape"
    y = first.input_value(0).get_node() if planar else ops.transpose(first.input_value(0), [0, 2, 3, 4, 1])
    if out_type is not None: y = ops.convert(y, out_type)
    y.output(0).set_names({"packed_logits"})
    network.add_parameters([new]); 
    network.add_results([ops.result(y)])
    network.remove_result(res)
    network.remove_parameter(old)
    network.validate_nodes_and_infer_types()
    return network
