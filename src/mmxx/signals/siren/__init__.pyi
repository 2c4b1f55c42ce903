from .baselines import CoordinateMLP as CoordinateMLP
from .baselines import GaussianFeatures as GaussianFeatures
from .baselines import PositionalEncoding as PositionalEncoding
from .baselines import nyquist_octaves as nyquist_octaves
from .field import SirenField as SirenField
from .fitting import fit as fit
from .fitting import fit_step as fit_step
from .frequency import first_omega as first_omega
from .frequency import probe_first_omega as probe_first_omega
from .hyper import ConvEncoder as ConvEncoder
from .hyper import HyperNetwork as HyperNetwork
from .hyper import SetEncoder as SetEncoder
from .hyper import hyper_loss as hyper_loss
from .losses import HelmholtzLoss as HelmholtzLoss
from .losses import InpaintingLoss as InpaintingLoss
from .losses import SDFLoss as SDFLoss
from .losses import gradient_loss as gradient_loss
from .losses import laplacian_loss as laplacian_loss
from .losses import mse_loss as mse_loss
from .metrics import chamfer as chamfer
from .metrics import eikonal_error as eikonal_error
from .metrics import match_affine as match_affine
from .metrics import psnr as psnr
from .metrics import ssim as ssim
from .operators import divergence as divergence
from .operators import gradient as gradient
from .operators import hessian as hessian
from .operators import jacobian as jacobian
from .operators import laplacian as laplacian
from .operators import value_gradient as value_gradient
from .operators import value_gradient_diagonal as value_gradient_diagonal
from .operators import value_gradient_hessian as value_gradient_hessian
from .operators import value_gradient_laplacian as value_gradient_laplacian
from .regressor import SirenRegressor as SirenRegressor
from .sampling import grid as grid
from .sampling import stratified_points as stratified_points
from .sampling import surface_batch as surface_batch
from .sampling import uniform_points as uniform_points
from .siren import BatchedSiren as BatchedSiren
from .siren import SineLayer as SineLayer
from .siren import Siren as Siren
from .siren import batched_siren as batched_siren
from .surfaces import bumpy_sphere as bumpy_sphere
from .surfaces import extract_mesh as extract_mesh
from .surfaces import obj_text as obj_text
from .surfaces import pieces_near as pieces_near
from .surfaces import ply_text as ply_text
from .surfaces import surface_points as surface_points

__all__ = [
    "BatchedSiren",
    "ConvEncoder",
    "CoordinateMLP",
    "GaussianFeatures",
    "HelmholtzLoss",
    "HyperNetwork",
    "InpaintingLoss",
    "PositionalEncoding",
    "SDFLoss",
    "SetEncoder",
    "SineLayer",
    "Siren",
    "SirenField",
    "SirenRegressor",
    "batched_siren",
    "bumpy_sphere",
    "chamfer",
    "divergence",
    "eikonal_error",
    "extract_mesh",
    "first_omega",
    "fit",
    "fit_step",
    "gradient",
    "gradient_loss",
    "grid",
    "hessian",
    "hyper_loss",
    "jacobian",
    "laplacian",
    "laplacian_loss",
    "match_affine",
    "mse_loss",
    "nyquist_octaves",
    "obj_text",
    "pieces_near",
    "ply_text",
    "probe_first_omega",
    "psnr",
    "ssim",
    "stratified_points",
    "surface_batch",
    "surface_points",
    "uniform_points",
    "value_gradient",
    "value_gradient_diagonal",
    "value_gradient_hessian",
    "value_gradient_laplacian",
]
