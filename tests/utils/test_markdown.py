"""Values in Markdown: shown literally, whatever they hold."""

import pytest

from timm_alfa.utils.markdown import Markdown, code_block, code_span, escape, markdown_table


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        ('l_alfa, resnet20s.alfa_c10 (0.5/255)', 'l_alfa, resnet20s.alfa_c10 (0.5/255)'),
        ('train (10% held out)', 'train (10% held out)'),
        (1.5, '1.5'),
        ('<script>', '&lt;script&gt;'),
        ('&lt;', '&amp;lt;'),
        ('[x](http://e)', r'\[x\](http&#58;//e)'),
        ('![x](y)', r'!\[x\](y)'),
        ('a | b', 'a &#124; b'),
        ('_a_ *b* `c` $d$ ~e~', r'\_a\_ \*b\* \`c\` \$d\$ \~e\~'),
        ('back\\slash', r'back\\slash'),
        ('a\n\n# b', r'a\\n\\n# b'),
        ('me@host www.host', 'me&#64;host www&#46;host'),
        (Markdown('**x**'), '**x**'),
    ],
)
def test_escape(value, text):
    assert escape(value) == text
    assert escape(escape(value)) == text


def test_code_cannot_be_closed_by_what_is_in_it():
    assert code_span('a`b``c') == '```a`b``c```'
    assert code_span('`x') == '`` `x ``'
    assert code_span('a|b\nc') == r'`a\|b\nc`'
    assert code_block('x\n```\ny', 'bash') == '````bash\nx\n```\ny\n````'


def test_a_cell_cannot_end_its_row():
    assert markdown_table(('a', 'b'), [('x|y', 'c\n| d |'), (r'\|', 1)]) == (
        '| a | b |\n| --- | --- |\n| x\\|y | c\\n\\| d \\| |\n| \\| | 1 |'
    )
