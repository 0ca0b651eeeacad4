"""Whose fields and layer types those are that Caffe 1.0 does not have; the well-known ones."""

from __future__ import annotations

NVCAFFE = "NVCaffe"
_INTEL = "Intel Caffe"
_SSD = "weiliu89/caffe (SSD)"
_RCNN = "rbgirshick/caffe-fast-rcnn"
_SEGNET = "alexgkendall/caffe-segnet"
_AUGMENT = "twtygqyy/caffe-augmentation"

_FIELDS_OF = {
    NVCAFFE: (
        "default_forward_type default_backward_type default_forward_math default_backward_math "
        "forward_type backward_type forward_math backward_math global_grad_scale reduce_buckets "
        "default_conv_algos_override default_cudnn_math_override conv_algos_override "
        "cudnn_math_override rampup_interval rampup_lr min_lr momentum_policy max_momentum larc "
        "larc_policy larc_eta weight_decay_policy test_and_snapshot_last_epochs "
        "store_blobs_in_old_format solver_data_type scale_bias scale_filler max_epoch epoch_size "
        "test_epoch_size test_interval_epoch per_parameter_reduce"
    ),
    _INTEL: "warmup_iter warmup_start_lr",
    _SSD: (
        "annotated_data_param prior_box_param multibox_loss_param permute_param "
        "detection_output_param detection_evaluate_param norm_param video_data_param "
        "resize_param distort_param expand_param emit_constraint eval_type ap_version "
        "show_per_class_result"
    ),
    _RCNN: "roi_pooling_param smooth_l1_loss_param",
    _SEGNET: "bn_param upsample_param dense_image_data_param weight_by_label_freqs class_weighting",
    _AUGMENT: (
        "min_side min_side_min min_side_max max_rotation_angle contrast_brightness_adjustment "
        "smooth_filtering min_contrast max_contrast max_brightness_shift max_smooth "
        "max_color_shift apply_probability debug_params"
    ),
    "hszhao/PSPNet": "interp_param",
}
_TYPES_OF = {
    _SSD: (
        "AnnotatedData PriorBox MultiBoxLoss Permute DetectionOutput DetectionEvaluate Normalize "
        "VideoData"
    ),
    _RCNN: "ROIPooling SmoothL1Loss",
    _SEGNET: "BN Upsample DenseImageData",
    "hujie-frank/SENet": "Axpy",
    "hszhao/PSPNet": "Interp",
    "a fork with depthwise convolution": "DepthwiseConvolution ConvolutionDepthwise",
    "farmingyard/ShuffleNet": "ShuffleChannel",
}

FIELDS = {name: fork for fork, names in _FIELDS_OF.items() for name in names.split()}
LAYER_TYPES = {name: fork for fork, names in _TYPES_OF.items() for name in names.split()}
