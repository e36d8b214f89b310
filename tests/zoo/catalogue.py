"""Names of the torchvision and timm models that `export_zoo` exports, in the order of their use."""

from __future__ import annotations

TORCHVISION_FIRST = (
    "resnet50", "densenet121", "densenet201", "efficientnet_b0", "efficientnet_b7", "vgg16", "googlenet",
    "inception_v3", "mobilenet_v3_small", "mobilenet_v2", "regnet_y_3_2gf", "shufflenet_v2_x1_0",
    "resnext50_32x4d", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t", "squeezenet1_0",
    "alexnet", "mnasnet1_0",
)  # fmt: skip

TORCHVISION = (
    # segmentation networks and the backbones of the detectors
    "fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large",
    "fcn_resnet101", "deeplabv3_resnet101", "backbone_fasterrcnn_resnet50_fpn",
    "backbone_fasterrcnn_resnet50_fpn_v2", "backbone_fasterrcnn_mobilenet_v3_large_fpn",
    "backbone_retinanet_resnet50_fpn", "backbone_retinanet_resnet50_fpn_v2", "backbone_fcos_resnet50_fpn",
    "backbone_ssd300_vgg16", "backbone_ssdlite320_mobilenet_v3_large",
    # classification
    "resnet18", "resnet34", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2",
    "resnext101_32x8d", "resnext101_64x4d", "densenet161", "densenet169", "efficientnet_b1",
    "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6",
    "efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l", "mnasnet0_5", "mnasnet0_75",
    "mnasnet1_3", "mobilenet_v3_large", "squeezenet1_1", "shufflenet_v2_x0_5", "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_1_6gf", "regnet_x_3_2gf",
    "regnet_x_8gf", "regnet_x_16gf", "regnet_x_32gf", "regnet_y_400mf", "regnet_y_800mf", "regnet_y_1_6gf",
    "regnet_y_8gf", "regnet_y_16gf", "regnet_y_32gf", "convnext_small", "convnext_base", "swin_s", "swin_b",
    "swin_v2_s", "swin_v2_b", "vit_b_32", "vgg16_bn", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg19",
    "vgg19_bn",
)  # fmt: skip

TORCHVISION_SIZES = {
    "inception_v3": 299,
    "swin_v2_t": 256,
    "swin_v2_s": 256,
    "swin_v2_b": 256,
    "backbone_ssd300_vgg16": 300,
    "backbone_ssdlite320_mobilenet_v3_large": 320,
}
"""Input height and width of the models that do not take 224 x 224."""

TIMM = (
    # named as hard in earlier trials: relative-position attention, linear attention, sliced gates
    "botnet26t_256", "efficientvit_b0", "efficientvit_l1", "ghostnetv2_100", "halonet26t",
    "lambda_resnet26t",
    # convolutional
    "resnet18d", "seresnet50", "ecaresnet26t", "resnetv2_50", "resnetv2_50d_gn", "resnetv2_50x1_bit",
    "resnetaa50", "skresnet18", "resnest14d", "resnest50d_4s2x40d", "res2net50_26w_4s", "res2next50",
    "dla34", "dla60_res2net", "dpn68", "hrnet_w18_small", "cspresnet50", "cspresnext50", "cspdarknet53",
    "darknet53", "cs3darknet_focus_s", "cs3sedarknet_l", "densenetblur121d", "rdnet_tiny", "vovnet39a",
    "ese_vovnet19b_dw", "selecsls42b", "legacy_xception", "xception41", "inception_v4",
    "inception_resnet_v2", "nasnetalarge", "pnasnet5large", "legacy_seresnext26_32x4d", "gernet_s",
    "repvgg_a0", "mobileone_s0", "regnetz_b16", "regnetv_040", "regnety_002", "gcresnext26ts",
    "bat_resnext26ts", "seresnextaa101d_32x8d", "tresnet_m", "nf_resnet50", "dm_nfnet_f0", "eca_nfnet_l0",
    "convmixer_768_32", "hgnet_tiny", "hgnetv2_b0", "cspnext_s",
    # mobile
    "mobilenetv1_100", "mobilenetv3_large_100", "mobilenetv4_conv_small", "mobilenetv4_hybrid_medium",
    "efficientnet_lite0", "efficientnetv2_rw_t", "efficientnet_b0_gn", "tf_efficientnet_b0", "mixnet_s",
    "mnasnet_small", "fbnetv3_b", "lcnet_050", "hardcorenas_a", "spnasnet_100", "tinynet_e", "ghostnet_100",
    "ghostnetv3_100", "repghostnet_100", "rexnet_100", "repvit_m0_9", "fastvit_t8", "fastvit_sa12",
    "fasternet_t0", "starnet_s1", "shvit_s1", "mobilevit_xxs", "mobilevitv2_050", "edgenext_xx_small",
    "efficientformer_l1", "efficientformerv2_s0", "efficientvit_m0", "swiftformer_xs", "tiny_vit_5m_224",
    "levit_128s", "iformer_t", "lowformer_b0",
    # convolutions arranged like transformers
    "convnext_atto", "convnext_atto_rms", "convnextv2_atto", "inception_next_atto", "mambaout_femto",
    "focalnet_tiny_srf", "poolformer_s12", "poolformerv2_s12", "convformer_s18", "caformer_s18",
    # attention
    "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224",
    "beit_base_patch16_224", "eva02_tiny_patch14_224", "cait_xxs24_224", "crossvit_9_240", "coat_lite_tiny",
    "coatnet_nano_rw_224", "maxvit_nano_rw_256", "maxxvit_rmlp_nano_rw_256", "convit_tiny", "davit_tiny",
    "gcvit_xxtiny", "hiera_tiny_224", "mvitv2_tiny", "nest_tiny", "nextvit_small", "pit_ti_224",
    "pvt_v2_b0", "pvt_v2_b2_li", "sequencer2d_s", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_224", "tnt_s_patch16_224", "twins_pcpvt_small", "twins_svt_small", "visformer_tiny",
    "vit_relpos_small_patch16_224", "vit_small_resnet26d_224", "volo_d1_224", "xcit_nano_12_p16_224",
    "vitamin_small_224", "samvit_base_patch16_224",
    # token mixing
    "mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224", "gmixer_12_224",
)  # fmt: skip

_FEW_BOXES = {"box_detections_per_img": 20, "rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 50}
_SMALL_IMAGES = {"min_size": 128, "max_size": 192}

DETECTION: dict[str, tuple[int, dict[str, int]]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": (320, {}),
    "ssdlite320_mobilenet_v3_large": (320, {}),
    "fasterrcnn_mobilenet_v3_large_fpn": (128, {**_SMALL_IMAGES, **_FEW_BOXES}),
    "fasterrcnn_resnet50_fpn": (128, {**_SMALL_IMAGES, **_FEW_BOXES}),
    "fasterrcnn_resnet50_fpn_v2": (128, {**_SMALL_IMAGES, **_FEW_BOXES}),
    "maskrcnn_resnet50_fpn": (128, {**_SMALL_IMAGES, **_FEW_BOXES}),
    "maskrcnn_resnet50_fpn_v2": (128, {**_SMALL_IMAGES, **_FEW_BOXES}),
    "keypointrcnn_resnet50_fpn": (128, {**_SMALL_IMAGES, **_FEW_BOXES}),
    "retinanet_resnet50_fpn": (128, _SMALL_IMAGES),
    "retinanet_resnet50_fpn_v2": (128, _SMALL_IMAGES),
    "fcos_resnet50_fpn": (128, _SMALL_IMAGES),
    "ssd300_vgg16": (300, {}),
}
"""torchvision's detectors: height and width of the image, and what keeps their work small."""

VIDEO = {
    "r3d_18": (8, 56),
    "mc3_18": (8, 56),
    "r2plus1d_18": (8, 56),
    "s3d": (16, 224),
    "mvit_v1_b": (8, 64),
    "mvit_v2_s": (8, 64),
    "swin3d_t": (8, 64),
}
"""torchvision's video classifiers: frames, and their height and width."""

FLOW = {"raft_small": 128, "raft_large": 128}
"""torchvision's optical flow networks: height and width of both images; less is refused."""

YOLO = ("yolov8n", "yolov5n", "yolov8n-seg", "yolo11n", "yolov10n")
"""Described by ultralytics; fresh weights."""

TRAINED = ("efficientnet_lite0", "mobilenet_v2_trained", "all_minilm_l6_v2")
"""Trained weights that packages ship."""

HEADS = ("yolo_nms", "yolo_nms_classes", "centre_topk", "corner_maxpool_nms", "ridge_maxpool_nms", "argmax_gather")
"""Small networks of our own with a selection in the graph (see `nets.selecting`)."""

SPIKING = ("leaky_conv", "leaky_depthwise", "synaptic_conv", "lapicque_conv")
"""Small spiking networks, unrolled over time (see `nets.spiking`)."""

ONCE = {
    "torchscript": (
        "googlenet", "mobilenet_v3_small", "resnet18", "resnext50_32x4d", "shufflenet_v2_x1_0", "squeezenet1_0",
        "mnasnet1_0", "vit_b_16", "convnext_tiny", "fcn_resnet50", "deeplabv3_mobilenet_v3_large",
        "lraspp_mobilenet_v3_large",
    ),
    "dynamo": (
        "efficientnet_v2_s", "resnet50", "densenet121", "vgg11", "regnet_y_400mf", "swin_t", "googlenet",
        "mobilenet_v3_small", "lraspp_mobilenet_v3_large", "deeplabv3_resnet50",
    ),
}  # fmt: skip
"""A short selection of torchvision's classifiers and segmentation networks, most by one exporter only."""
