"""Generators, counts, text, complex numbers, linear algebra."""

from __future__ import annotations

from graphnorm.ops.traits import Operator, Trait, family, row

ALGEBRA = Trait.ALGEBRA
COMPLEX = Trait.COMPLEX
DISCRETE = Trait.DISCRETE
GENERATES = Trait.GENERATES
MOVES = Trait.MOVES
RANDOM = Trait.RANDOM
TEXT = Trait.TEXT
WRITES = Trait.WRITES

ROWS: dict[str, Operator] = {
    **family(
        "generators",
        row("Constant", 0, since=1, traits=GENERATES),
        row("ConstantOfShape", 1, since=9, traits=GENERATES),
        row("Range", 3, since=11, traits=GENERATES),
        row("AffineGrid", 2, since=20, traits=GENERATES),
        row("BlackmanWindow", 1, since=17, traits=GENERATES),
        row("HammingWindow", 1, since=17, traits=GENERATES),
        row("HannWindow", 1, since=17, traits=GENERATES),
        row("MelWeightMatrix", 5, since=17, traits=GENERATES),
        row("ImageDecoder", 1, since=20, traits=GENERATES),
        row("aten::empty", 0, traits=GENERATES),
        row("Multinomial", 1, since=7, traits=RANDOM),
        row("Bernoulli", 1, since=15, traits=RANDOM),
        row("RandomNormal", 0, since=1, traits=GENERATES | RANDOM),
        row("RandomUniform", 0, since=1, traits=GENERATES | RANDOM),
        row("RandomNormalLike", 1, since=1, traits=GENERATES | RANDOM),
        row("RandomUniformLike", 1, since=1, traits=GENERATES | RANDOM),
        row("aten::poisson", 1, traits=RANDOM),
        row("aten::_standard_gamma", 1, traits=RANDOM),
        row("aten::binomial", 2, traits=RANDOM),
        row("aten::cauchy", 1, traits=RANDOM),
        row("aten::geometric", 1, traits=RANDOM),
        row("aten::multinomial", 1, traits=RANDOM),
    ),
    **family(
        "counts and choices",
        row("OneHot", 3, since=9, traits=DISCRETE),
        row("NonZero", 1, since=9, traits=DISCRETE),
        row("Unique", 1, since=11, traits=DISCRETE),
        row("NonMaxSuppression", 2, 5, since=10, traits=DISCRETE),
        row("aten::histc", 1, traits=DISCRETE),
        row("aten::bincount", 1, 2, traits=DISCRETE),
        row("aten::histogram", 1, 3, traits=DISCRETE),
        row("aten::unique_consecutive", 1, traits=DISCRETE),
        row("aten::unique_dim_consecutive", 1, traits=DISCRETE),
        row("aten::item", 1, traits=DISCRETE),
        row("aten::_local_scalar_dense", 1, traits=DISCRETE),
        row("ai.onnx.ml::ArrayFeatureExtractor", 2, traits=MOVES),
    ),
    **family(
        "text",
        row("RegexFullMatch", 1, since=20, traits=TEXT),
        row("StringConcat", 2, since=20, traits=TEXT),
        row("StringNormalizer", 1, since=10, traits=TEXT),
        row("StringSplit", 1, since=20, traits=TEXT),
        row("TfIdfVectorizer", 1, since=9, traits=TEXT),
    ),
    **family(
        "complex numbers",
        row("aten::view_as_complex", 1, traits=COMPLEX),
        row("aten::complex", 2, traits=COMPLEX),
        row("aten::polar", 2, traits=COMPLEX),
        row("aten::_fft_r2c", 1, traits=COMPLEX),
        row("aten::_fft_c2c", 1, traits=COMPLEX),
        row("aten::_fft_c2r", 1, traits=COMPLEX),
        row("aten::stft", 1, 2, traits=COMPLEX),
        row("aten::istft", 1, 2, traits=COMPLEX),
    ),
    **family(
        "linear algebra",
        row("Det", 1, since=11, traits=ALGEBRA),
        row("aten::_linalg_det", 1, traits=ALGEBRA),
        row("aten::_linalg_slogdet", 1, traits=ALGEBRA),
        row("aten::_linalg_svd", 1, traits=ALGEBRA),
        row("aten::_linalg_eigh", 1, traits=ALGEBRA),
        row("aten::linalg_eig", 1, traits=ALGEBRA),
        row("aten::linalg_qr", 1, traits=ALGEBRA),
        row("aten::linalg_cholesky_ex", 1, traits=ALGEBRA),
        row("aten::linalg_inv_ex", 1, traits=ALGEBRA),
        row("aten::_linalg_solve_ex", 2, traits=ALGEBRA),
        row("aten::linalg_lu", 1, traits=ALGEBRA),
        row("aten::linalg_lu_factor_ex", 1, traits=ALGEBRA),
        row("aten::linalg_lu_solve", 3, traits=ALGEBRA),
        row("aten::linalg_solve_triangular", 2, traits=ALGEBRA),
        row("aten::linalg_lstsq", 2, traits=ALGEBRA),
        row("aten::linalg_matrix_exp", 1, traits=ALGEBRA),
        row("aten::linalg_pinv", 1, 3, traits=ALGEBRA),
        row("aten::linalg_householder_product", 2, traits=ALGEBRA),
        row("aten::cholesky_solve", 2, traits=ALGEBRA),
        row("aten::cholesky_inverse", 1, traits=ALGEBRA),
        row("aten::triangular_solve", 2, traits=ALGEBRA),
    ),
    **family(
        "memory",
        row("aten::as_strided", 1),
        row("aten::embedding_renorm", 2, traits=WRITES),
    ),
}
