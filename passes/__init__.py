"""Rewriting passes: import the module of your framework.

* `graphnorm.passes.fx`: ``torch.fx.passes.infra`` passes over an ``fx.GraphModule``;
* `graphnorm.passes.onnx`: ``onnx_ir.passes`` passes over an ``onnx_ir.Model``.

Both have a ``FoldBatchNormPass``, a ``RewriteClipsPass`` and a ``CanonicalizePass``, whose fields are their
options; passes for EquiNorm layers (`graphnorm.nn`) are for torch only.  Importing this package imports
neither torch nor onnx.
"""
