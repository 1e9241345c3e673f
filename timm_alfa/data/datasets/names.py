"""Names of datasets that are known without opening any."""

# torchvision's that have a list of labels. For any split but `train`, timm opens torchvision's test images.
TORCH_NAMES = ('cifar10', 'cifar100', 'mnist', 'kmnist', 'fashion_mnist', 'qmnist', 'imagenet', 'places365')
