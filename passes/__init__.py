"""Rewriting passes: import the module of your framework.

* `graphnorm.passes.fx`: ``torch.fx.passes.infra`` passes over an ``fx.GraphModule``;
* `graphnorm.passes.onnx`: ``onnx_ir.passes`` passes over an ``onnx_ir.Model``.

Each has a ``FoldBatchNormPass``, a ``RewriteClipsPass`` and a ``CanonicalizePass``, whose fields are their
options.  Importing this package imports neither torch nor onnx.
"""
