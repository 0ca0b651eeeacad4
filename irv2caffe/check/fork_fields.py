"""Well-known fields, values and layer types that Caffe 1.0 does not have, and the forks that do.

From src/caffe/proto/caffe.proto of each repository that is named. NVCaffe is NVIDIA/caffe up to
0.17 and borisgin/nvcaffe after it, Intel Caffe is intel/caffe up to 1.1; PVANet's file is that of
openvinotoolkit/training_toolbox_caffe, which adopted it.
"""

from __future__ import annotations

NVCAFFE = "NVCaffe"
_INTEL = "Intel Caffe"
_NVIDIA_AND_INTEL = f"{NVCAFFE}, as {_INTEL},"
_SSD = "weiliu89/caffe (SSD)"
_RCNN = "rbgirshick/caffe-fast-rcnn"
_RFCN = "daijifeng001/caffe-rfcn (R-FCN)"
_SEGNET = "alexgkendall/caffe-segnet"
_DEEPLAB = "DeepLab's Caffe"
_PSPNET = "hszhao/PSPNet"
_PSPNET_AND_DEEPLAB = f"{_PSPNET}, as {_DEEPLAB},"
_SEGNET_AND_PSPNET = f"{_SEGNET}, as {_PSPNET},"
_OPENPOSE = "CMU-Perceptual-Computing-Lab/caffe_train (OpenPose)"
_RTPOSE = "CMU-Perceptual-Computing-Lab/caffe_rtpose (OpenPose)"
_PVANET = "sanghoon/caffe (PVANet)"
_YOLO = "yeahkun/caffe-yolo"
_SPHEREFACE = "wy1iu/sphereface"
_FLOWNET = "lmb-freiburg/flownet2"
_AUGMENT = "twtygqyy/caffe-augmentation"
_DEPTHWISE = "a fork with depthwise convolution"
_CONVERTED = "a fork that can round down (DSSD, converters from PyTorch)"
_LSTM = "junhyukoh/caffe-lstm"

# Fork: message of Caffe ("" for any message): names of its fields.
_FIELDS_OF = {
    NVCAFFE: {
        "": (
            "default_forward_type default_backward_type default_forward_math default_backward_math "
            "forward_type backward_type forward_math backward_math global_grad_scale "
            "global_grad_scale_adaptive reduce_buckets cudnn_convolution_algo_seeker "
            "default_conv_algos_override default_cudnn_math_override conv_algos_override "
            "cudnn_math_override rampup_interval rampup_lr momentum_policy max_momentum "
            "momentum_power larc larc_policy larc_eta larc_turbo weight_decay_policy "
            "weight_decay_power test_and_snapshot_last_epochs store_blobs_in_old_format "
            "solver_data_type scale_bias scale_filler max_epoch epoch_size test_epoch_size "
            "test_interval_epoch per_parameter_reduce use_gpu_transform img_rand_resize_lower "
            "img_rand_resize_upper rand_resize_ratio_lower rand_resize_ratio_upper "
            "vertical_stretch_lower vertical_stretch_upper horizontal_stretch_lower "
            "horizontal_stretch_upper allow_upscale interpolation_algo_down "
            "interpolation_algo_up detectnet_groundtruth_param detectnet_augmentation_param "
            "var_sz_img_enabled forward_packing torch_pooling"
        ),
        "LayerParameter": "debug",
        "SolverParameter": "min_lr",
        "TransformationParameter": "random_seed display num_labels",
        "DataParameter": "threads parser_threads cache",
        "DropoutParameter": "engine random_seed",
        "ELUParameter": "lambda",
    },
    _NVIDIA_AND_INTEL: {
        "SolverParameter": "local_lr_auto local_gw_ratio",
        "DataParameter": "shuffle",
        "BatchNormParameter": "engine bias_filler",
    },
    _INTEL: {
        "": (
            "disabled_update warmup_iter warmup_start_lr bn_stats_batch_size compile_net_state "
            "quantization_param random_resize_param random_aspect_ratio_param multinode "
            "mn_activation_param mn_grad_compress_param split_param spatial_dropout_param "
            "continuation_indicator_param simpler_nms_param stats_batch_size use_weight_bias "
            "conv_algorithm avg_include_pad label_smoothing"
        ),
        "NetParameter": "engine",
        "LayerParameter": "engine",
        "SolverParameter": "engine",
        "TransformationParameter": "flow",
        "BatchNormParameter": "bias_term filler relu",
        "ConcatParameter": "engine",
        "ConvolutionParameter": "relu negative_slope fusion_type",
        "EltwiseParameter": "engine",
        "InnerProductParameter": "engine",
        "PoolingParameter": "axis",
        "ReLUParameter": "fuse",
    },
    _SSD: {
        "": (
            "annotated_data_param prior_box_param multibox_loss_param permute_param "
            "detection_output_param detection_evaluate_param norm_param video_data_param "
            "resize_param noise_param distort_param expand_param emit_constraint eval_type "
            "ap_version show_per_class_result plateau_winsize"
        ),
        "TransformationParameter": "crop_h crop_w",
    },
    _RCNN: {"": "roi_pooling_param smooth_l1_loss_param scale_train"},
    _RFCN: {"": "psroi_pooling_param box_annotator_ohem_param pre_fixed_normalizer"},
    _PVANET: {"": "proposal_param"},
    _YOLO: {"": "stagelr stageiter"},
    _SEGNET_AND_PSPNET: {"": "bn_param"},
    _SEGNET: {
        "": (
            "upsample_param dense_image_data_param weight_by_label_freqs class_weighting "
            "sample_weights_test"
        )
    },
    _DEEPLAB: {
        "": (
            "strict_dim seg_accuracy_param mat_write_param mat_read_param dense_crf_param "
            "softmaxloss_param domain_transform_param adaptive_bias_channel_param "
            "bias_channel_param unique_label_param scale_factors crop_width crop_height"
        ),
        "ConvolutionParameter": "hole hole_h hole_w",
        "ImageDataParameter": "label_type ignore_label",
    },
    _PSPNET_AND_DEEPLAB: {"": "interp_param"},
    _PSPNET: {
        "": (
            "batch_reduction_param rand_resize rand_rotate gaussian_blur rand_aspect_ratio "
            "label_scalefactor label_offset rotate90n is_rsdata rs_channels"
        )
    },
    _OPENPOSE: {"": "cpm_transform_param"},
    _RTPOSE: {"": "imresize_param nms_param"},
    _FLOWNET: {
        "": (
            "augmentation_param coeff_schedule_param correlation_param resample_param "
            "l1_loss_param writer_param reader_param mean_param downsample_param lpq_loss_param "
            "flow_warp_param reshape_every_iter"
        )
    },
    _AUGMENT: {
        "": (
            "min_scaling_factor max_scaling_factor min_side min_side_min min_side_max "
            "max_rotation_angle contrast_brightness_adjustment "
            "smooth_filtering min_contrast max_contrast max_brightness_shift max_smooth "
            "max_color_shift apply_probability debug_params"
        )
    },
    _CONVERTED: {"PoolingParameter": "ceil_mode"},
    _LSTM: {"": "lstm_param"},
    "happynear/caffe-windows": {
        "": "center_loss_param",
        "ImageDataParameter": (
            "face_transform max_shear_ratio max_aspect_ratio max_rotate_angle min_random_scale "
            "max_random_scale max_random_shift face_mirror face_point_num"
        ),
    },
    _SPHEREFACE: {"": "margin_inner_product_param"},
    "farmingyard/ShuffleNet": {"": "shuffle_channel_param"},
}
_TYPES_OF = {
    NVCAFFE: "DetectNetTransformation",
    _INTEL: "SpatialDropout ContinuationIndicator SimplerNMS",
    _SSD: (
        "AnnotatedData PriorBox MultiBoxLoss Permute DetectionOutput DetectionEvaluate Normalize "
        "VideoData"
    ),
    _RCNN: "ROIPooling SmoothL1Loss",
    _PVANET: "Proposal",
    _RFCN: "PSROIPooling BoxAnnotatorOHEM SmoothL1LossOHEM SoftmaxWithLossOHEM",
    _SEGNET_AND_PSPNET: "BN",
    _SEGNET: "Upsample DenseImageData UPSAMPLE DENSE_IMAGE_DATA",
    _DEEPLAB: (
        "ImageSegData SegAccuracy MatWrite MatRead DenseCRF SEG_ACCURACY MAT_WRITE MAT_READ "
        "DENSE_CRF IMAGE_SEG_DATA DomainTransform"
    ),
    "s9xie/hed": "ImageLabelmapData",
    _PSPNET_AND_DEEPLAB: "Interp INTERP",
    _PSPNET: "BatchReduction",
    _OPENPOSE: "CPMData",
    _RTPOSE: "ImResize Nms",
    _FLOWNET: (
        "CustomData DataAugmentation FlowAugmentation GenerateAugmentationParameters FlowWarp "
        "Correlation Correlation1D ChannelNorm L1Loss LpqLoss Resample Downsample Mean FLOWriter"
    ),
    "hujie-frank/SENet": "Axpy",
    _DEPTHWISE: "DepthwiseConvolution ConvolutionDepthwise",
    "farmingyard/ShuffleNet": "ShuffleChannel",
    _LSTM: "Lstm",
    "happynear/caffe-windows": "CenterLoss",
    _SPHEREFACE: "MarginInnerProduct",
}
_VALUES_OF = {
    _INTEL: "MKL2017 MKLDNN",
    NVCAFFE: "FLOAT FLOAT16 DOUBLE",
    _DEEPLAB: "PIXEL IMAGE",
    _RFCN: "PRE_FIXED",
}
_POLICIES_OF = {
    _SSD: "plateau",
    _YOLO: "multifixed",
    "jolibrain/caffe (DeepDetect)": "sgdr",
    "a fork with cosine decay": "cosine cosine_decay",
}
# NVCaffe has these as well since 0.17 (NVIDIA/caffe, caffe.proto and include/caffe/layers).
_ALSO_NVCAFFE = frozenset({_SSD, "Axpy", "L1Loss", "SmoothL1Loss"})

# What Caffe 1.0 has instead.
INSTEAD = {
    "scale_bias": "a Scale layer with scale_param { bias_term: true } behind the BatchNorm",
    "hole": "dilation, which is Caffe 1.0's name for it",
    "hole_h": "dilation, which is Caffe 1.0's name for it",
    "hole_w": "dilation, which is Caffe 1.0's name for it",
    "softmaxloss_param": "loss_param, which has ignore_label",
    "max_epoch": "max_iter: epochs x images / batch",
    "shuffle": "remove it, and shuffle when the database is made: make-lmdb --shuffle",
    "engine": "remove it: Caffe 1.0 has one engine on the CPU",
    "relu": "a ReLU layer behind this one",
}
# Fields without which the net is another one, so that other findings on it may be wrong.
_CHANGING = (
    "ceil_mode torch_pooling hole hole_h hole_w scale_bias crop_h crop_w crop_width crop_height "
    "resize_param max_epoch epoch_size relu lstm_param softmaxloss_param label_type "
    "test_interval_epoch test_epoch_size img_rand_resize_lower"
)

_FIELDS = {
    (message, name): fork
    for fork, messages in _FIELDS_OF.items()
    for message, names in messages.items()
    for name in names.split()
}
LAYER_TYPES = {name: fork for fork, names in _TYPES_OF.items() for name in names.split()}
VALUES = {name: fork for fork, names in _VALUES_OF.items() for name in names.split()}
POLICIES = {name: fork for fork, names in _POLICIES_OF.items() for name in names.split()}


def of_field(message: str, name: str) -> str:
    """The fork that has a field; empty if it is not known."""
    return _FIELDS.get((message, name)) or _FIELDS.get(("", name), "")


def in_nvcaffe(fork: str, name: str) -> bool:
    """Whether NVCaffe has a fork's field, value or layer type."""
    return fork.startswith(NVCAFFE) or not _ALSO_NVCAFFE.isdisjoint({fork, name})


def changes_the_net(message: str, name: str) -> bool:
    """Whether a field changes shapes or settings; so may a field of no known fork."""
    return name in _CHANGING.split() or not of_field(message, name)
