"""The same import twice is one import; the files of one import come side by side."""

from concurrent.futures import ThreadPoolExecutor

from tests.e2e.world import Files, Model, World
from tests.faults.hub import Rule

FILES: Files = {"big.bin": 200_000, "small.bin": 3000, "tiny.bin": 30}


def stall(world: World, model: Model) -> None:
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=1000))


def downloads_by_file(world: World, model: Model) -> dict[str, int]:
    found: dict[str, int] = {}
    for request in world.hub.downloads(model.id):
        name = request.path.rpartition("/")[2]
        found[name] = found.get(name, 0) + (request.range_start == 0)
    return found


def jobs(world: World, model: Model) -> int:
    statement = """SELECT count(*) FROM stowage_proxy.imports WHERE "order" -> 'model' ->> 'model_id' = $1"""
    return int(world.rows(statement, model.id)[0]["count"])


def test_a_repeated_order_is_answered_with_the_running_task(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    revision = world.scan(model)["id"]
    stall(world, model)

    first = world.order([revision], folder)
    repeats = [world.order([revision], folder), world.order([revision], folder, force=True)]

    assert repeats == [first, first]
    world.hub.clear()
    assert world.finished(str(first[0]))["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    assert downloads_by_file(world, model) == dict.fromkeys(FILES, 1)
    assert jobs(world, model) == 1


def test_two_clients_at_the_same_moment_order_one_import(world: World) -> None:
    model, folder, guest = world.model(FILES), world.folder(), world.person()
    world.grant(folder, guest, "READ_WRITE")
    revision = world.scan(model)["id"]
    stall(world, model)

    with ThreadPoolExecutor(max_workers=8) as pool:
        people = [world.admin, guest] * 4
        answers = list(pool.map(lambda person: world.order([revision], folder, by=person), people))

    ((task_id,),) = {tuple(answer) for answer in answers}
    world.hub.clear()
    assert world.finished(str(task_id))["status"] == "SUCCEEDED"
    assert downloads_by_file(world, model) == dict.fromkeys(FILES, 1)
    assert jobs(world, model) == 1


def test_two_clients_at_the_same_moment_fill_the_artifact_storage_once(world: World) -> None:
    model = world.model(FILES)
    revision = world.scan(model)["id"]
    stall(world, model)

    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = list(pool.map(lambda _: world.order([revision]), range(8)))

    ((task_id,),) = {tuple(answer) for answer in answers}
    world.hub.clear()
    assert world.finished(str(task_id))["status"] == "SUCCEEDED"
    assert downloads_by_file(world, model) == dict.fromkeys(FILES, 1)
    assert jobs(world, model) == 1


def test_a_repeat_with_another_conflict_policy_is_refused_while_the_first_runs(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    revision = world.scan(model)["id"]
    stall(world, model)
    first = world.order([revision], folder)
    tasks = "SELECT count(*) FROM import_tasks"
    before = world.rows(tasks)

    answer = world.request([revision], folder, onConflict="OVERWRITE")

    extensions = answer["errors"][0]["extensions"]
    assert (extensions["code"], extensions["field"]) == ("CONFLICT", "input.options.onConflict")
    assert world.rows(tasks) == before
    world.hub.clear()
    assert world.finished(str(first[0]))["status"] == "SUCCEEDED"


def test_the_proxy_takes_one_order_once_and_another_body_never(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    stall(world, model)
    task_id = world.begin(model, folder)
    (row,) = world.rows('SELECT "order"::text FROM import_tasks WHERE id = $1', task_id)
    order = row["order"]

    same = world.proxy("POST", "/imports", order)
    other = world.proxy("POST", "/imports", order.replace("/main", "/elsewhere"))

    assert (same.status_code, same.json()) == (202, {"task_id": task_id})
    assert (other.status_code, other.json()["code"]) == (409, "CONFLICT")
    world.hub.clear()
    assert world.finished(task_id)["status"] == "SUCCEEDED"
    assert downloads_by_file(world, model) == dict.fromkeys(FILES, 1)


def test_two_imports_into_the_same_place_of_one_folder_do_not_mix(world: World) -> None:
    half: Files = {"config.json": b"half", "half.bin": 50_000}
    model, folder = world.model(FILES, branches={"half": half}), world.folder()
    revisions = [world.scan(model, name)["id"] for name in ("main", "half")]

    tasks = [world.order([revision], folder, path="model")[0] for revision in revisions]
    ended = [world.finished(str(task_id)) for task_id in tasks]

    versions = [set(model.digests), {"config.json", "half.bin"}]
    assert {task["status"] for task in ended} <= {"SUCCEEDED", "FAILED"}
    assert set(folder.digests("model")) in versions, "one version whole, never two halves"


def test_the_files_of_one_import_come_side_by_side(world: World) -> None:
    model, folder = world.model({f"part-{number}.bin": 60_000 for number in range(8)}), world.folder()
    world.scan(model)
    world.hub.forget()
    world.hub.set(Rule(path=f"{model.id}/resolve/", rate=60_000))

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    assert world.hub.max_open_downloads >= 4
