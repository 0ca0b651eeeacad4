#ifdef USE_CUDNN
#include <vector>

#include "caffe/layers/cudnn_conv_layer.hpp"

namespace caffe {

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::SetShape(const Blob<Dtype>& bottom,
    const Blob<Dtype>& top) {
  const int axis = this->channel_axis_ + 1;
  cudnn::ConvolutionShape shape;
  shape.num = this->num_;
  shape.channels = this->channels_;
  shape.height = bottom.shape(axis);
  shape.width = bottom.shape(axis + 1);
  shape.num_output = this->num_output_;
  shape.height_out = top.shape(axis);
  shape.width_out = top.shape(axis + 1);
  for (int i = 0; i < 2; ++i) {
    shape.kernel[i] = this->kernel_shape_.cpu_data()[i];
    shape.pad[i] = this->pad_.cpu_data()[i];
    shape.stride[i] = this->stride_.cpu_data()[i];
    shape.dilation[i] = this->dilation_.cpu_data()[i];
  }
  shape.group = this->group_;
  convolution_.SetShape(shape);
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::Forward_gpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (this->num_spatial_axes_ != 2) {
    return ConvolutionLayer<Dtype>::Forward_gpu(bottom, top);
  }
  SetShape(*bottom[0], *top[0]);
  const Dtype* weight = this->blobs_[0]->gpu_data();
  for (int i = 0; i < bottom.size(); ++i) {
    Dtype* top_data = top[i]->mutable_gpu_data();
    convolution_.Forward(bottom[i]->gpu_data(), weight, top_data);
    if (this->bias_term_) {
      convolution_.AddBiasToY(this->blobs_[1]->gpu_data(), top_data);
    }
  }
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::Backward_gpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  if (this->num_spatial_axes_ != 2) {
    return ConvolutionLayer<Dtype>::Backward_gpu(top, propagate_down, bottom);
  }
  SetShape(*bottom[0], *top[0]);
  for (int i = 0; i < top.size(); ++i) {
    const Dtype* top_diff = top[i]->gpu_diff();
    if (this->bias_term_ && this->param_propagate_down_[1]) {
      convolution_.BackwardBiasOfY(top_diff,
          this->blobs_[1]->mutable_gpu_diff());
    }
    if (this->param_propagate_down_[0]) {
      convolution_.BackwardFilter(bottom[i]->gpu_data(), top_diff,
          this->blobs_[0]->mutable_gpu_diff());
    }
    if (propagate_down[i]) {
      convolution_.BackwardData(top_diff, this->blobs_[0]->gpu_data(),
          bottom[i]->mutable_gpu_diff());
    }
  }
}

INSTANTIATE_CLASS(CuDNNConvolutionLayer);

}  // namespace caffe
#endif  // USE_CUDNN
