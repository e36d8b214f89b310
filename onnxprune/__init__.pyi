# The public names and where they live: for type checkers, and for lazy_loader, which imports them on first use.

from .analysis.analyzing import Analysis as Analysis
from .analysis.analyzing import analyze as analyze
from .errors import AnswersError as AnswersError
from .errors import BudgetError as BudgetError
from .errors import ConversionError as ConversionError
from .errors import DataError as DataError
from .errors import MeasurementError as MeasurementError
from .errors import ModelError as ModelError
from .errors import OnnxPruneError as OnnxPruneError
from .errors import PassError as PassError
from .errors import PlanError as PlanError
from .errors import RegistryError as RegistryError
from .errors import ShapeError as ShapeError
from .errors import UsageError as UsageError
from .errors import VerificationError as VerificationError
from .ir.engine import Engine as Engine
from .ir.model import Model as Model
from .ir.model import load as load
from .latency.bench import Bench as Bench
from .latency.bench import bench as bench
from .latency.fitting import LatencyFit as LatencyFit
from .latency.fitting import meet_latency as meet_latency
from .latency.machine import LocalMachine as LocalMachine
from .latency.model import LatencyProfile as LatencyProfile
from .latency.profile import profile_latency as profile_latency
from .passes.normalize import normalize as normalize
from .pruning.certificate import Certificate as Certificate
from .pruning.certificate import verify as verify
from .pruning.choosing import plan as plan
from .pruning.compensation import Compensation as Compensation
from .pruning.compensation import compensate as compensate
from .pruning.pipeline import Compression as Compression
from .pruning.pipeline import apply as apply
from .pruning.pipeline import compress as compress
from .pruning.plan import Plan as Plan
from .pruning.proving import Proof as Proof
from .pruning.proving import prove as prove
from .pruning.quantization.quantizing import Quantization as Quantization
from .pruning.quantization.quantizing import quantize as quantize
from .pruning.recovery import Recovery as Recovery
from .pruning.recovery import recover as recover
from .pruning.sensitivity import Sensitivity as Sensitivity
from .pruning.sensitivity import scan_sensitivity as scan_sensitivity

__version__: str
