"""Holds what csm-server was asked and answered against proto-spec/openapi.yaml.

    openapi.py OPENAPI METHOD PATH STATUS BODY ANSWER     BODY: a file, or - for none; an answer that is not JSON is not looked into
"""
import json
import re
import sys

import jsonschema
import yaml


def template_of(spec, method, path):
    for template, item in spec['paths'].items():
        if re.fullmatch(re.sub(r'\{[^}]*\}', '[^/]+', template), path) and method.lower() in item:
            return template
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


def load(path):
    with open(path, encoding='utf-8') as f:
        return yaml.load(f, getattr(yaml, 'CSafeLoader', yaml.SafeLoader))


def held(spec, method, path, status, sent, answer):
    """Holds a request (sent: its JSON, or None) and its answer (bytes) against the description; the template of the path, and what is
    described of the answer."""
    template = template_of(spec, method, path.split('?')[0])
    operation = spec['paths'][template][method.lower()]
    if sent is not None and status.startswith('2'):
        check(schema_of(spec, operation.get('requestBody', {})), sent, f'{method} {path}: what was sent')
    responses = operation['responses']
    if status not in responses and (status.startswith('2') or 'default' not in responses):
        raise SystemExit(f'{method} {path}: status {status} is not described')
    response = resolve(spec, responses.get(status) or responses['default'])
    if answer.startswith(b'{'):
        check(schema_of(spec, response), answer, f'{method} {path}: {status}')
    return template, response


def main():
    spec = load(sys.argv[1])
    method, path, status, body, answer = sys.argv[2:]
    sent = None
    if body != '-':
        with open(body, encoding='utf-8') as f:
            sent = f.read()
    with open(answer, 'rb') as f:
        held(spec, method, path, status, sent, f.read())


if __name__ == '__main__':
    main()
