from .audio import Audio as Audio
from .audio import read_audio as read_audio
from .embedded import co2 as co2
from .embedded import digits as digits
from .embedded import doc_text as doc_text
from .embedded import elnino as elnino
from .embedded import photo as photo
from .embedded import photos as photos
from .graph_files import read_tu as read_tu
from .graph_files import write_tu as write_tu
from .graph_objects import as_graphs as as_graphs
from .graph_objects import to_networkx as to_networkx
from .graphs import Graphs as Graphs
from .image_arrays import read_images as read_images
from .image_files import Image as Image
from .image_files import Images as Images
from .image_files import read_image as read_image
from .images import patches as patches
from .images import photo_patches as photo_patches
from .kinds import KINDS as KINDS
from .kinds import load as load
from .meshes import Mesh as Mesh
from .meshes import PointCloud as PointCloud
from .meshes import read_mesh as read_mesh
from .meshes import sample_surface as sample_surface
from .source import DataError as DataError
from .source import Source as Source
from .tables import Table as Table
from .tables import decimal_years as decimal_years
from .tables import read_table as read_table
from .text import Text as Text
from .text import read_text as read_text

__all__ = [
    "KINDS",
    "Audio",
    "DataError",
    "Graphs",
    "Image",
    "Images",
    "Mesh",
    "PointCloud",
    "Source",
    "Table",
    "Text",
    "as_graphs",
    "co2",
    "decimal_years",
    "digits",
    "doc_text",
    "elnino",
    "load",
    "patches",
    "photo",
    "photo_patches",
    "photos",
    "read_audio",
    "read_image",
    "read_images",
    "read_mesh",
    "read_table",
    "read_text",
    "read_tu",
    "sample_surface",
    "to_networkx",
    "write_tu",
]
