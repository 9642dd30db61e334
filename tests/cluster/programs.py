"""The programs of the test cluster, built from Go modules into the kit's cache."""

from pathlib import Path

from dify_kit.setup.go_build import STRIPPED, GoBuild, Part, build_all

MODULES = Path(__file__).parent / "modules"
FOLDER = "cluster"
KUBERNETES, COREDNS, KUBE_ROUTER, LOCAL_PATH, PAUSE = "1.34.4", "1.14.7", "2.1.0", "0.0.30", "1"
# hyperkube runs as the program by whose name it is called.
ROLES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)
_MAJOR, _MINOR, _ = KUBERNETES.split(".")
_VERSION = "k8s.io/component-base/version"
_LINKER = " ".join(
    [
        STRIPPED,
        f"-X {_VERSION}.gitVersion=v{KUBERNETES} -X {_VERSION}.gitMajor={_MAJOR} -X {_VERSION}.gitMinor={_MINOR}",
        f"-X k8s.io/client-go/pkg/version.gitVersion=v{KUBERNETES}",
    ]
)


def _build(
    name: str, version: str, *, package: str = ".", module: str = "", linker: str = STRIPPED
) -> GoBuild:
    part = Part(module=module or name, package=package, program=name, linker=linker)
    return GoBuild(
        name=f"{name} {version}", folder=FOLDER, version=f"{name}-{version}", sources=MODULES, parts=(part,)
    )


HYPERKUBE = _build("hyperkube", KUBERNETES, linker=_LINKER)
DNS = _build("coredns", COREDNS)
POLICIES = _build("netpol", KUBE_ROUTER)
STORAGE = _build(
    "local-path-provisioner",
    LOCAL_PATH,
    package="github.com/rancher/local-path-provisioner",
    module="local-path",
)
SANDBOX = _build("pause", PAUSE)
# In this order: those that share libraries with Kubernetes find them compiled.
BUILDS = (HYPERKUBE, POLICIES, STORAGE, SANDBOX, DNS)


def program(build: GoBuild) -> Path:
    """Return the path of a build's program."""
    return build.directory / build.programs[0]


def missing() -> list[str]:
    """Return the names of the programs that are not in the cache."""
    return [build.name for build in BUILDS if not build.is_complete()]


def ensure_programs() -> None:
    """Build what is missing; about 10 minutes of CPU when all of it is. Raises KitError."""
    build_all(BUILDS)
    for role in ROLES:
        link = HYPERKUBE.directory / role
        if not link.is_symlink():
            link.unlink(missing_ok=True)
            link.symlink_to(program(HYPERKUBE).name)
