"""Whose fields, values and layer types those are that Caffe 1.0 does not have; the well-known ones.

Read off the caffe.proto of each branch.
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
_PSPNET = "hszhao/PSPNet, as DeepLab's Caffe,"
_OPENPOSE = "CMU-Perceptual-Computing-Lab/caffe_train (OpenPose)"
_FLOWNET = "lmb-freiburg/flownet2"
_AUGMENT = "twtygqyy/caffe-augmentation"
_DEPTHWISE = "a fork with depthwise convolution"
_CONVERTED = "a fork that can round down (DSSD, converters from PyTorch)"
_LSTM = "junhyukoh/caffe-lstm"

# Fork: message of Caffe ("" where the name alone tells): names of its fields.
_FIELDS_OF = {
    NVCAFFE: {
        "": (
            "default_forward_type default_backward_type default_forward_math default_backward_math "
            "forward_type backward_type forward_math backward_math global_grad_scale "
            "global_grad_scale_param global_grad_scale_adaptive reduce_buckets "
            "default_conv_algos_override default_cudnn_math_override conv_algos_override "
            "cudnn_math_override rampup_interval rampup_lr momentum_policy max_momentum "
            "momentum_power larc larc_policy larc_eta larc_turbo weight_decay_policy "
            "weight_decay_power test_and_snapshot_last_epochs store_blobs_in_old_format "
            "solver_data_type scale_bias scale_filler max_epoch epoch_size test_epoch_size "
            "test_interval_epoch per_parameter_reduce use_gpu_transform img_rand_resize_lower "
            "img_rand_resize_upper rand_resize_ratio_lower rand_resize_ratio_upper "
            "vertical_stretch_lower vertical_stretch_upper horizontal_stretch_lower "
            "horizontal_stretch_upper allow_upscale interpolation_algo_down "
            "interpolation_algo_up detectnet_groundtruth_param detectnet_augmentation_param"
        ),
        "DataParameter": "threads parser_threads cache",
        "BatchNormParameter": "bias_filler",
    },
    _NVIDIA_AND_INTEL: {
        "SolverParameter": "min_lr",
        "DataParameter": "shuffle",
        "BatchNormParameter": "engine",
    },
    _INTEL: {
        "": (
            "warmup_iter warmup_start_lr local_lr_auto local_gw_ratio bn_stats_batch_size "
            "compile_net_state quantization_param random_resize_param random_aspect_ratio_param "
            "multinode mn_param"
        ),
        "NetParameter": "engine",
        "LayerParameter": "engine",
        "SolverParameter": "engine",
        "ConvolutionParameter": "relu fusion_type",
        "ReLUParameter": "fuse",
    },
    _SSD: {
        "": (
            "annotated_data_param prior_box_param multibox_loss_param permute_param "
            "detection_output_param detection_evaluate_param norm_param video_data_param "
            "resize_param noise_param distort_param expand_param emit_constraint eval_type "
            "ap_version show_per_class_result plateau_winsize stagelr stageiter"
        ),
        "TransformationParameter": "crop_h crop_w",
    },
    _RCNN: {"": "roi_pooling_param smooth_l1_loss_param proposal_param scale_train"},
    _RFCN: {"": "psroi_pooling_param box_annotator_ohem_param"},
    _SEGNET: {
        "": "upsample_param dense_image_data_param weight_by_label_freqs class_weighting bn_param"
    },
    _DEEPLAB: {
        "": (
            "strict_dim seg_accuracy_param mat_write_param mat_read_param dense_crf_param "
            "softmaxloss_param"
        ),
        "ConvolutionParameter": "hole hole_h hole_w",
        "ImageDataParameter": "label_type",
    },
    _PSPNET: {"": "interp_param"},
    _OPENPOSE: {"": "cpm_transform_param imresize_param nms_param"},
    _FLOWNET: {"": "augmentation_param coeff_schedule_param correlation_param resample_param"},
    _AUGMENT: {
        "": (
            "min_side min_side_min min_side_max max_rotation_angle contrast_brightness_adjustment "
            "smooth_filtering min_contrast max_contrast max_brightness_shift max_smooth "
            "max_color_shift apply_probability debug_params"
        )
    },
    _CONVERTED: {"PoolingParameter": "ceil_mode"},
    _LSTM: {"": "lstm_param"},
    "happynear/caffe-windows": {"": "margin_inner_product_param center_loss_param"},
    "farmingyard/ShuffleNet": {"": "shuffle_channel_param"},
}
_TYPES_OF = {
    NVCAFFE: "DetectNetTransformation",
    _SSD: (
        "AnnotatedData PriorBox MultiBoxLoss Permute DetectionOutput DetectionEvaluate Normalize "
        "VideoData"
    ),
    _RCNN: "ROIPooling SmoothL1Loss Proposal",
    _RFCN: "PSROIPooling BoxAnnotatorOHEM SmoothL1LossOHEM SoftmaxWithLossOHEM",
    _SEGNET: "BN Upsample DenseImageData UPSAMPLE DENSE_IMAGE_DATA",
    _DEEPLAB: (
        "ImageSegData SegAccuracy MatWrite MatRead DenseCRF SEG_ACCURACY MAT_WRITE MAT_READ "
        "DENSE_CRF IMAGE_SEG_DATA"
    ),
    "s9xie/hed": "ImageLabelmapData",
    _PSPNET: "Interp INTERP",
    _OPENPOSE: "CPMData ImResize Nms",
    _FLOWNET: "CustomData DataAugmentation FlowWarp Correlation Correlation1D L1Loss Resample",
    "hujie-frank/SENet": "Axpy",
    _DEPTHWISE: "DepthwiseConvolution ConvolutionDepthwise",
    "farmingyard/ShuffleNet": "ShuffleChannel",
    _LSTM: "Lstm",
    "happynear/caffe-windows": "MarginInnerProduct CenterLoss",
}
_VALUES_OF = {
    _INTEL: "MKL2017 MKLDNN",
    NVCAFFE: "FLOAT FLOAT16 DOUBLE",
    _DEEPLAB: "PIXEL IMAGE",
}
_POLICIES_OF = {_SSD: "multifixed plateau", "a fork with cosine decay": "cosine cosine_decay sgdr"}

# What Caffe 1.0 has instead.
INSTEAD = {
    "scale_bias": "a Scale layer with scale_param { bias_term: true } behind the BatchNorm",
    "hole": "dilation, which is Caffe 1.0's name for it",
    "hole_h": "dilation, which is Caffe 1.0's name for it",
    "hole_w": "dilation, which is Caffe 1.0's name for it",
    "softmaxloss_param": "loss_param, which has ignore_label",
    "max_epoch": "max_iter: epochs x images / batch",
    "shuffle": "take it out, and shuffle while the database is made: make-lmdb --shuffle",
    "engine": "take it out: Caffe 1.0 has one engine on the CPU",
    "relu": "a ReLU layer behind the convolution",
}
# Those without which the net is another one: what is found of it then may not be so.
_CHANGING = (
    "ceil_mode hole hole_h hole_w scale_bias crop_h crop_w resize_param max_epoch epoch_size relu "
    "lstm_param softmaxloss_param label_type test_interval_epoch test_epoch_size "
    "img_rand_resize_lower"
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
    """The fork that has a field, or nothing."""
    return _FIELDS.get((message, name)) or _FIELDS.get(("", name), "")


def changes_the_net(message: str, name: str) -> bool:
    """Whether a field matters for shapes and settings; of a field of nobody's, nobody knows."""
    return name in _CHANGING.split() or not of_field(message, name)
