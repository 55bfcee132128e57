"""Holds what csm-server was asked and answered against proto-spec/openapi.yaml.

    openapi.py OPENAPI METHOD PATH STATUS BODY ANSWER     BODY: a file, or - for none; an answer that is not JSON is not looked into
    openapi.py OPENAPI --routes                           what `csm-server --routes` prints, on standard input: each is described
"""
import json
import re
import sys

import jsonschema
import yaml


def described(spec, method, path):
    for template, item in spec['paths'].items():
        if re.fullmatch(re.sub(r'\{[^}]*\}', '[^/]+', template), path) and method.lower() in item:
            return item[method.lower()]
    raise SystemExit(f'{method} {path}: not described')


def schema_of(spec, content):
    """The schema of JSON content, able to look up its references; None where it is another type."""
    json_content = content.get('content', {}).get('application/json')
    return dict(json_content['schema'], components=spec['components']) if json_content else None


def resolve(spec, part):
    while '$ref' in part:
        target = spec
        for name in part['$ref'].lstrip('#/').split('/'):
            target = target[name]
        part = target
    return part


def check(schema, text, what):
    if schema is None:
        raise SystemExit(f'{what}: no JSON is described')
    try:
        jsonschema.validate(json.loads(text), schema)
    except jsonschema.ValidationError as error:
        raise SystemExit(f'{what}: {error.message}') from error


def main():
    with open(sys.argv[1], encoding='utf-8') as f:
        spec = yaml.safe_load(f)
    if sys.argv[2] == '--routes':
        for method, path, *_ in (line.split() for line in sys.stdin):
            if method.lower() not in spec['paths'].get(path, {}):
                raise SystemExit(f'{method} {path}: not described')
        return
    method, path, status, body, answer = sys.argv[2:]
    path = path.split('?')[0]
    operation = described(spec, method, path)
    if body != '-' and status.startswith('2'):
        with open(body, encoding='utf-8') as f:
            check(schema_of(spec, operation.get('requestBody', {})), f.read(), f'{method} {path}: what was sent')
    responses = operation['responses']
    if status not in responses and (status.startswith('2') or 'default' not in responses):
        raise SystemExit(f'{method} {path}: status {status} is not described')
    response = resolve(spec, responses.get(status) or responses['default'])
    with open(answer, 'rb') as f:
        text = f.read()
    if text.startswith(b'{'):
        check(schema_of(spec, response), text, f'{method} {path}: {status}')


main()
