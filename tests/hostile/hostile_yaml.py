"""Configurations that try to grow, to build objects, or to mean something else."""

from __future__ import annotations

from good_packages import GOOD_CONFIG, refused


@refused("yaml_broken")
def empty_file() -> str:
    return ""


@refused("yaml_broken")
def null_bytes() -> str:
    return "\0" * 100


@refused("yaml_broken")
def two_documents() -> str:
    return GOOD_CONFIG + "---\n" + GOOD_CONFIG


@refused("yaml_broken")
def escape_beyond_any_character() -> str:
    return GOOD_CONFIG + '  note: "\\UFFFFFFFF"\n'


@refused("yaml_alias")
def billion_laughs() -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    return "\n".join(lines)


@refused("yaml_alias")
def alias_to_itself() -> str:
    return "a: &a [*a]"


@refused("yaml_tag")
def python_object() -> str:
    return GOOD_CONFIG + 'evil: !!python/object/apply:os.system ["touch canary"]\n'


@refused("yaml_tag")
def binary_tag() -> str:
    return GOOD_CONFIG + "evil: !!binary aGk=\n"


@refused("yaml_too_deep")
def deep_nesting() -> str:
    return "[" * 30_000


@refused("yaml_too_large")
def too_large() -> str:
    return GOOD_CONFIG + "# " + "x" * 100_000


@refused("yaml_duplicate_key")
def duplicate_key() -> str:
    return GOOD_CONFIG + "modality: audio\n"


@refused("yaml_value")
def half_a_character() -> str:
    return GOOD_CONFIG + '  label: "\\ud800"\n'


@refused("yaml_value")
def merge_key() -> str:
    return GOOD_CONFIG + "<<: {name: other}\n"


@refused("yaml_value")
def infinite_number() -> str:
    return GOOD_CONFIG.replace("num_classes: 2", "num_classes: .inf")


@refused("yaml_value")
def number_of_many_digits() -> str:
    return GOOD_CONFIG.replace("num_classes: 2", f"num_classes: {'9' * 10_000}")


@refused("wrong_modality")
def wrong_modality() -> str:
    return GOOD_CONFIG.replace("modality: image", "modality: smell")


@refused("config_missing")
def no_modality() -> str:
    return GOOD_CONFIG.replace("modality: image\n", "")


@refused("config_missing")
def no_resize() -> str:
    return GOOD_CONFIG.replace("resize: [32, 32]", "normalize: true")


@refused("config_invalid")
def name_that_is_a_path() -> str:
    return GOOD_CONFIG.replace("tiny-net", "../../etc/passwd")


@refused("config_invalid")
def unknown_key() -> str:
    return GOOD_CONFIG + "command: rm\n"


@refused("config_invalid")
def too_many_classes() -> str:
    return GOOD_CONFIG.replace("num_classes: 2", "num_classes: 101")


@refused("config_invalid")
def true_as_a_number() -> str:
    return GOOD_CONFIG.replace("num_classes: 2", "num_classes: true")


@refused("config_invalid")
def classes_that_do_not_fit() -> str:
    return GOOD_CONFIG + "  classes: [real]\n"


@refused("config_invalid")
def input_of_gigabytes() -> str:
    return GOOD_CONFIG.replace("image", "video").replace("[32, 32]", "[4096, 4096]")


@refused("config_invalid")
def huge_resize() -> str:
    return GOOD_CONFIG.replace("[32, 32]", "[100000, 100000]")


@refused("config_invalid")
def parameter_that_replaces_the_path() -> str:
    return GOOD_CONFIG + "  weights_path: /etc/passwd\n"


@refused("weights_name")
def weights_elsewhere() -> str:
    return GOOD_CONFIG + "  weights_file: ../other.safetensors\n"
