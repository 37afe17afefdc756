"""Names of ONNX Runtime's graph optimizations, as ``disabled_optimizers`` takes them.

ONNX Runtime has no list to ask for: these are the names that version 1.32 writes into its verbose log. A name that a
version does not know is ignored there.
"""

from __future__ import annotations

# fmt: off
OPTIMIZERS = (
    "EliminateIdentity", "EliminateSlice", "EliminateDropout", "UnsqueezeElimination", "ExpandElimination",
    "CastElimination", "CastChainElimination", "PreShapeNodeElimination", "NoopElimination", "NotWhereFusion",
    "DivMulFusion", "FuseReluClip", "GemmSumFusion", "GemmTransposeFusion", "ConvAddFusion", "ConvMulFusion",
    "ConvBNFusion", "Pad_Fusion", "MatMul_BatchNormalization_Fusion", "LabelEncoderFusion", "ClipQuantRewrite",
    "ReluQuantRewrite", "ConstantSharing", "CommonSubexpressionElimination", "ConstantFolding", "ReshapeFusion",
    "MatMulAddFusion", "GeluFusionL1", "LayerNormFusionL1", "SliceConcatToSpaceToDepthFusion",
    "RemoveDuplicateCastTransformer", "WhereDummyDq", "QDQPropagationTransformer", "EnsureUniqueDQForNodeUnit",
    "DoubleQDQPairsRemover", "WeightBiasQuantization", "TransposeOptimizer", "QDQS8ToU8Transformer",
    "QDQSelectorActionTransformer", "QDQFinalCleanupTransformer", "GemmActivationFusion",
    "MatMulIntegerToFloatFusion", "DynamicQuantizeMatMulFusion", "ConvActivationFusion", "ConvAddActivationFusion",
    "GeluFusionL2", "LayerNormFusionL2", "SimplifiedLayerNormFusion", "AttentionFusion", "EmbedLayerNormFusion",
    "GatherSliceToSplitFusion", "GatherToSliceFusion", "MatmulTransposeFusion", "BiasGeluFusion",
    "GroupQueryAttentionFusion", "GroupQueryAttentionPreNormFusion", "SkipLayerNormFusion", "BiasSkipLayerNormFusion",
    "FastGeluFusion", "QuickGeluFusion", "SwiGluFusion", "BiasSoftmaxFusion", "BiasDropoutFusion",
    "MatMulScaleFusion", "MatMulActivationFusion", "MatMulNBitsFusion", "FuseFp16InitializerToFp32NodeTransformer",
    "NchwcTransformer", "NhwcTransformer", "TransposeOptimizer_CPUExecutionProvider",
)
