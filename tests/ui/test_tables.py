from ui.tables import row_height


def test_rows_are_as_high_as_the_longest_text_needs():
    heights = [row_height(n, 390) for n in (20, 80, 200, 5000)]
    assert heights == sorted(heights)
    assert heights[0] == 35
    assert heights[1] > 64  # from there on texts wrap
    assert row_height(80, 235) >= heights[1]


def test_one_very_long_text_does_not_blow_up_all_rows():
    assert row_height(5000, 390, most=88) == 88
    assert row_height(20, 390, most=88) == 35
