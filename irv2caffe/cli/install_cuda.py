"""install-caffe --cuda."""

from __future__ import annotations

from pathlib import Path

from irv2caffe import ui


def install_cuda(
    cuda: str,
    prefix: Path | None,
    mirror: str | None,
    *,
    arch: str | None,
    cudnn: bool | None,
    dry_run: bool,
    jobs: int | None,
    build_dir: Path | None,
    keep_build: bool,
    second_mirror: str | None,
    pycaffe: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Checks the machine, shows the plan, builds, and shows the report."""
    import platformdirs

    from irv2caffe.caffe.build_cuda import host, install
    from irv2caffe.caffe.build_cuda.plan import make_plan
    from irv2caffe.caffe.find import default_gpu_prefix
    from irv2caffe.caffe.gpu_host import read_host
    from irv2caffe.caffe.mirror import check_mirror, known_mirror

    archs = None if arch is None else host.parse_archs(arch)
    host.check_machine()
    number = None if cuda == "auto" else int(cuda)
    variant = host.choose_variant(read_host(), number, archs, python=pycaffe, cudnn=cudnn)
    mirrors = [known_mirror(mirror), *([check_mirror(second_mirror)] if second_mirror else [])]
    plan = make_plan(
        (prefix or default_gpu_prefix()).absolute(),
        (build_dir or Path(platformdirs.user_cache_dir("irv2caffe")) / "cuda").absolute(),
        variant,
        tuple(mirrors),
        jobs,
    )
    if dry_run:
        if as_json:
            ui.show_json(plan.as_dict())
        else:
            ui.show(plan.text())
        return
    ui.say(plan.text())
    report = install.install_cuda(plan, ui.progress, force=force, keep_build=keep_build, say=ui.say)
    if as_json:
        ui.show_json(report.as_dict())
    else:
        ui.show(report.summary())
